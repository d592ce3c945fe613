"""Reasoning that has used up its budget is closed, and the answer begins: two requests that look like one."""

import io
from pathlib import Path

import pytest

from llmcli.errors import EngineError
from llmcli.ui.sessions.records import ChatSetup, read_setup, setup_record
from llmcli.ui.thinking_budget import BudgetedStream
from tests.ui.fake_engine import Chat, FakeEngine, Script
from tests.ui.test_session import run

THOUGHTS = Script(("<think>", "one", " two", " three", " four", "</think>", "early"))
CLOSING = "\n</think>\n\n"


def chat(*scripts: Script, budget: int | None = 3, max_model_len: int = 100) -> Chat:
    made = Chat(FakeEngine(list(scripts), max_model_len=max_model_len))
    made.state.thinking_budget = budget
    return made


def test_the_answer_begins_when_the_budget_is_used_up() -> None:
    cut = chat(THOUGHTS, Script(("4", "2")))
    assert run(cut, "hi") == "42\n"
    turn = cut.state.conversation.turns[0]
    assert (turn.reasoning, turn.answer, turn.finish_reason) == ("one two", "42", "stop")


def test_it_goes_on_behind_the_same_prompt_the_reasoning_so_far_and_the_mark() -> None:
    cut = chat(THOUGHTS, Script(("42",)))
    run(cut, "hi")
    first, second = cut.engine.prompts
    closing = cut.engine.tokenizer.encode(CLOSING)
    assert second == [*first, 1, 1, 1, *closing]


def test_the_request_that_thinks_is_ended() -> None:
    cut = chat(THOUGHTS, Script(("42",)))
    run(cut, "hi")
    assert [stream.aborted.is_set() for stream in cut.engine.streams] == [True, False]


def test_the_counts_are_those_of_one_answer() -> None:
    cut = chat(THOUGHTS, Script(("4", "2")))
    run(cut, "hi")
    stats = cut.state.conversation.turns[0].stats
    assert stats is not None
    assert stats.num_prompt_tokens == len(cut.engine.prompts[0])
    assert stats.num_output_tokens == len(cut.engine.prompts[1]) - len(cut.engine.prompts[0]) + 2
    assert (stats.ttft_s, stats.total_s) == (0.25, 2.5)
    assert cut.state.totals.answers == 1


@pytest.mark.parametrize(
    "script",
    [Script(("<think>", "one", "</think>", "42")), Script(("4", "2", "4", "2")), Script(("<think>", "x"))],
)
def test_reasoning_within_the_budget_and_an_answer_without_any_are_left_alone(script: Script) -> None:
    left, free = chat(script), chat(script, budget=None)
    assert run(left, "hi") == run(free, "hi")
    assert len(left.engine.prompts) == 1


def test_a_prompt_that_opens_the_reasoning_counts_from_the_first_token() -> None:
    cut = chat(Script(("one", " two", " three", " four")), Script(("42",)))
    cut.engine.tokenizer = type(cut.engine.tokenizer)(prompt_end="<think>\n")
    assert run(cut, "hi") == "42\n"
    assert cut.state.conversation.turns[0].reasoning == "one two three"


def test_the_form_of_an_answer_begins_behind_the_mark_that_was_put_in() -> None:
    cut = chat(Script(("one", " two", " three", " four")), Script(("42",)))
    cut.engine.tokenizer = type(cut.engine.tokenizer)(prompt_end="<think>\n")
    run(cut, "/regex [0-9]+", "hi")
    forms = [params.structured for params in cut.engine.params]
    assert [form and (form.text, form.after) for form in forms] == [("[0-9]+", "</think>"), ("[0-9]+", "")]


@pytest.mark.parametrize(("limit", "asked"), [(4, 1), (50, 2)])
def test_both_requests_together_stay_within_max_tokens(limit: int, asked: int) -> None:
    cut = chat(THOUGHTS, Script(("42",)))
    run(cut, f"/set max_tokens {limit}", "/set min_tokens 4", "hi")
    added = 3 + len(cut.engine.tokenizer.encode(CLOSING))
    assert [params.max_tokens for params in cut.engine.params] == [limit, limit - added][:asked]
    assert [params.min_tokens for params in cut.engine.params] == [4, 0][:asked]


def test_without_room_for_an_answer_it_ends_as_one_that_is_too_long() -> None:
    cut = chat(THOUGHTS, max_model_len=6)
    run(cut, "hi")
    assert cut.state.conversation.turns[0].finish_reason == "length"
    assert len(cut.engine.prompts) == 1


@pytest.mark.parametrize("cut_first", [True, False], ids=["behind the cut", "before the cut"])
def test_ctrl_c_stops_either_part(cut_first: bool) -> None:
    stopped = Script(("<think>", "one"), interrupted=True)
    scripts = (THOUGHTS, Script(("4",), interrupted=True)) if cut_first else (stopped,)
    cut = chat(*scripts)
    run(cut, "hi")
    assert cut.state.conversation.turns[0].finish_reason == "abort"
    assert "(stopped)" in cut.notes


def test_a_stop_between_the_two_requests_ends_the_second_at_once() -> None:
    engine = FakeEngine([THOUGHTS, Script(("4", "2"))])
    streams: list[BudgetedStream] = []
    backend = Chat(engine).state.loaded()
    from llmcli.ui.conversation import ChatPrompt, FittedPrompt
    from llmcli.ui.thinking_budget import ThinkingBudget

    prompt = FittedPrompt(ChatPrompt([{"role": "user", "content": "hi"}]), (1, 2), 0)
    stream = backend.submit(prompt, {}, ThinkingBudget(3, on_cut=lambda: streams[0].abort()))
    assert isinstance(stream, BudgetedStream)
    streams.append(stream)
    list(stream)
    assert engine.streams[1].aborted.is_set()


def test_a_failure_while_thinking_is_the_failure_of_the_answer() -> None:
    cut = chat(Script(("<think>", "one", " two", " three"), finish_reason="error", error="broken"))
    run(cut, "hi")
    assert f"error: {EngineError('the answer failed: broken').what}" in cut.notes


def test_the_budget_is_set_shown_and_switched_off() -> None:
    cut = chat(THOUGHTS, Script(("42",)), THOUGHTS, budget=None)
    out = run(cut, "/think budget 3", "hi", "/status", "/think budget off", "hi")
    assert out == "42\nearly\n"
    assert "thinking: as the model likes, fold, at most 3 tokens" in cut.notes
    assert "as the model likes, fold, at most 3 tokens" in cut.notes.split("prefix cache")[1]


@pytest.mark.parametrize("value", ["", "0", "-1", "much", "1 2"])
def test_a_budget_that_is_none_is_told(value: str) -> None:
    cut = chat(budget=7)
    run(cut, f"/think budget {value}".strip())
    assert "error: /think budget takes a number of tokens or off" in cut.notes
    assert cut.state.thinking_budget == 7


def test_8_large_k_are_8192() -> None:
    cut = chat()
    run(cut, "/think budget 8K")
    assert cut.state.thinking_budget == 8192


def test_it_is_saved_with_the_chat(tmp_path: Path) -> None:
    setup = ChatSetup("m", thinking_budget=431)
    assert read_setup(setup_record(setup)) == setup
    assert "thinking_budget" not in setup_record(ChatSetup("m"))
    with pytest.raises(ValueError, match="thinking_budget must not be"):
        read_setup({"model": "m", "thinking_budget": "many"})


def test_it_writes_nothing_of_the_mark_into_a_pipe() -> None:
    from llmcli.ui.session import ChatSession
    from llmcli.ui.thinking import TaggedThinking
    from llmcli.ui.view import AnswerView, PlainView
    from tests.ui.fake_engine import Lines

    cut, out = chat(THOUGHTS, Script(("42",))), io.StringIO()
    ChatSession(cut.state, Lines("hi"), lambda: AnswerView(PlainView(out), TaggedThinking(out))).run()
    assert out.getvalue() == "<think>\none two\n</think>\n\n42\n"
