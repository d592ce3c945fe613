"""Commands are tested without the configuration and the environment of whoever runs the tests."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llmcli.cli import verdict
from llmcli.cli.app import run_command_line
from llmcli.config import HardwareFacts
from llmcli.gpu_facts import NoGpu

Outcome = tuple[int, str, str]
Call = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's configuration, which is empty."""
    for name in os.environ:
        if name.startswith("LLMCLI_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "llmcli"


@pytest.fixture
def user_file(no_configuration: Path) -> Path:
    """Where the user's configuration may be written; its folder is there."""
    no_configuration.mkdir(parents=True)
    return no_configuration / "config.toml"


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with no memory to speak of, for what is judged before a download."""
    facts = HardwareFacts(
        total_memory=1 << 20,
        free_memory=1 << 16,
        num_cores=1,
        fast_bfloat16=True,
        native_kernels=False,
        gpu=NoGpu("there is none"),
    )
    monkeypatch.setattr(verdict, "read_hardware_facts", lambda gpu: facts)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command line in an empty working folder: exit code, stdout, stderr."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def run(*args: str) -> Outcome:
        code = run_command_line(list(args))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run
