"""A hub on loopback for each test, an empty cache, and the files of a small model."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmcli.hub.settings import HubSettings
from tests.fake_hub import FakeHub, running_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A running fake hub, not reached through any proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with running_hub() as running:
        yield running


@pytest.fixture
def settings(hub: FakeHub, tmp_path: Path) -> HubSettings:
    """An empty cache that belongs to the fake hub; no pause between tries."""
    return HubSettings(
        cache_dir=tmp_path / "hub",
        endpoint=hub.url,
        marks_file=tmp_path / "marks" / "verified.json",
        timeout_s=10.0,
        retry_wait_s=0.0,
    )


@pytest.fixture
def files() -> dict[str, bytes]:
    """A repository as people publish them: what llmcli needs, and much that it does not."""
    return {
        "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
        "generation_config.json": b"{}",
        "tokenizer.json": b'{"model": {}}',
        "tokenizer_config.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
        "model.safetensors": os.urandom(300_000),
        "pytorch_model.bin": b"pickle",
        "modeling_evil.py": b"raise SystemExit",
        "original/consolidated.00.safetensors": b"the same again",
        "README.md": b"# model",
    }


@pytest.fixture
def notices() -> Callable[[str], None]:
    """Collects notices in its `lines`."""
    return Notices()


class Notices:
    """A callable that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    @property
    def text(self) -> str:
        """All lines in one."""
        return "\n".join(self.lines)
