"""What the chat tells about the model that it runs."""

from types import SimpleNamespace

import pytest

from llmcli.model.spec import AwqSpec
from llmcli.ui.backend import LocalBackend
from tests.ui.fake_engine import FakeEngine


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (None, "none"),
        (AwqSpec(group_size=64, zero_point=True, version="gemm"), "AWQ 4-bit, groups of 64"),
        (AwqSpec(group_size=-1, zero_point=True, version="gemv"), "AWQ 4-bit, whole rows"),
    ],
)
def test_the_quantization_is_told_in_words(spec: AwqSpec | None, said: str) -> None:
    engine = FakeEngine()
    engine.spec = SimpleNamespace(quantization=spec)
    backend = LocalBackend(engine, engine)  # type: ignore[arg-type]
    assert dict(backend.describe())["quantization"] == said


def test_closing_stops_the_engine() -> None:
    engine = FakeEngine()
    LocalBackend(engine, engine).close()  # type: ignore[arg-type]
    assert engine.closed
