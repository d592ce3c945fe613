"""What the chat tells about the model that it runs."""

from types import SimpleNamespace

import pytest

from llmcli.model.spec import AwqSpec
from llmcli.structured import StructuredOutput
from llmcli.ui.backend import LocalBackend
from llmcli.ui.conversation import ChatPrompt, FittedPrompt
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


def placed(engine: FakeEngine, chat: ChatPrompt) -> StructuredOutput | None:
    """The form with which a prompt reaches the engine."""
    backend = LocalBackend(engine, engine)  # type: ignore[arg-type]
    prompt = FittedPrompt(chat, backend.encode(chat), 0)
    backend.submit(prompt, {"structured": StructuredOutput.regex("[a-z]+")})
    return engine.params[-1].structured


def test_an_answer_that_is_gone_on_with_keeps_to_the_form_from_its_beginning() -> None:
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ab"}]
    form = placed(FakeEngine(), ChatPrompt(said, continues=True))
    assert form == StructuredOutput("regex", "[a-z]+", begun="ab")


def test_the_form_begins_behind_the_reasoning_that_the_prompt_opens() -> None:
    said = [{"role": "user", "content": "hi"}]
    either = StructuredOutput("regex", "[a-z]+", after="</think>", opening="<think>")
    assert placed(FakeEngine(), ChatPrompt(said)) == either
    form = placed(FakeEngine(prompt_end="<think>"), ChatPrompt(said))
    assert form == StructuredOutput("regex", "[a-z]+", after="</think>")
