"""What a chat shows of its model, its prompt and its tokens."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from llmcli.errors import LLMCliError
from llmcli.hub.models import LocalModel
from llmcli.ui.backend import LocalBackend
from tests.ui.fake_engine import Chat, FakeEngine, Script
from tests.ui.test_session import run


def test_tokens_of_a_text_or_of_the_last_answer() -> None:
    chat = Chat(FakeEngine([Script(("four five",))]))
    run(chat, "/tokens", "/tokens one three", "hi", "/tokens")
    assert "error: there is nothing to take apart yet" in chat.notes
    assert "3:'xxx' 5:'xxxxx'\n2 tokens, 9 characters" in chat.notes
    assert "4:'xxxx' 4:'xxxx'\n2 tokens, 9 characters" in chat.notes


def test_the_prompt_is_shown_as_it_was_sent_with_control_tokens_marked() -> None:
    chat = Chat(FakeEngine())
    run(chat, "/prompt", "one", "/prompt")
    assert "error: nothing was sent yet" in chat.notes
    assert "⟦<0>⟧ xxx\n2 tokens; control tokens stand in ⟦ ⟧" in chat.notes


def test_a_prompt_without_control_tokens_is_shown_too() -> None:
    chat = Chat(FakeEngine(chat_template=None))
    run(chat, "one", "/prompt")
    assert "\nxxx\n1 tokens; control tokens stand in ⟦ ⟧" in chat.notes


def test_a_prompt_can_be_seen_before_it_is_sent_and_changes_nothing() -> None:
    chat = Chat(FakeEngine())
    run(chat, "one", "/prompt two two")
    assert "⟦<0>⟧ xxx⟦<0>⟧ xxxxx xxxxxx⟦<0>⟧ xxx xxx" in chat.notes
    assert len(chat.state.conversation.turns) == 1
    assert len(chat.engine.prompts) == 1


def test_stats_are_the_totals_of_all_answers() -> None:
    chat = Chat(FakeEngine())
    run(chat, "one", "two", "/regen", "/undo", "/stats")
    rows = dict(line.split("  ", 1) for line in chat.notes.splitlines() if "  " in line)
    assert rows["answers"].strip() == "3"
    assert rows["output tokens"].strip() == "9"
    assert rows["time"].strip() == "3.8 s"


def test_show_tells_what_the_model_brings(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "LICENSE").write_text("Do what you like.")
    engine = FakeEngine(generation_defaults={"top_k": 40})
    engine.model = LocalModel("fake", tmp_path, None, "folder")
    chat = Chat(engine)
    run(chat, "/show", "/show template", "/show license", "/show params", "/show me")
    for said in (
        "fake (folder)",
        "{{ messages }}",
        "Do what you like.",
        "top_k  40",
        "error: /show takes info",
    ):
        assert said in chat.notes


def test_a_template_in_place_of_the_models_is_the_one_that_is_shown_and_asked_for_its_switches() -> None:
    engine = FakeEngine()
    backend = LocalBackend(engine, engine, chat_template="{{ enable_thinking }}")  # type: ignore[arg-type]
    assert backend.template() == "{{ enable_thinking }}"
    assert backend.can_think


def test_variables_of_the_template_are_given_beside_the_switch_for_thinking() -> None:
    chat = Chat(FakeEngine())
    chat.state.template_variables = {"shout": 1, "enable_thinking": True}
    run(chat, "one")
    assert chat.engine.tokenizer.template_kwargs == {"shout": 1, "enable_thinking": True}
    chat.state.think = False
    assert chat.state.template_kwargs == {"shout": 1, "enable_thinking": False}


def test_show_says_what_the_model_does_not_bring() -> None:
    chat = Chat(FakeEngine())
    run(chat, "/show template", "/show license", "/show params")
    assert "fake has no chat template" in chat.notes
    assert "fake brings no licence" in chat.notes
    assert "fake has no sampling defaults of its own" in chat.notes


def test_logprobs_show_the_alternatives_of_each_token() -> None:
    chat = Chat(FakeEngine())
    run(chat, "one", "/logprobs on", "two", "/logprobs off", "three")
    assert [params.logprobs for params in chat.engine.params] == [None, 3, None]
    assert chat.notes.count("' there' 75.0% · 'else' 12.5%") == 1


def test_thinking_is_switched_where_the_template_knows_it(tmp_path: Path) -> None:
    chat = Chat(FakeEngine())
    run(chat, "/think on", "one")
    assert "error: the chat template of fake has no switch for thinking" in chat.notes
    assert not chat.engine.tokenizer.template_kwargs
    (tmp_path / "chat_template.jinja").write_text("{% if enable_thinking %}{% endif %}")
    chat.engine.model = LocalModel("fake", tmp_path, None, "folder")
    run(chat, "/think off", "two", "/think hide")
    assert chat.engine.tokenizer.template_kwargs == {"enable_thinking": False}
    assert "thinking: off, hide" in chat.notes


def test_a_wish_for_thinking_that_a_model_does_not_know_is_told_once_and_left_out() -> None:
    chat = Chat(FakeEngine())
    chat.state.think = True
    run(chat, "one", "two")
    assert chat.notes.count("the chat template of fake has no switch for thinking") == 1
    assert not chat.engine.tokenizer.template_kwargs


def test_bench_shows_what_was_measured_and_leaves_the_conversation() -> None:
    chat = Chat(FakeEngine())
    chat.state.measure = lambda engine, tell, stop: [("pp512", f"of {engine.model.name}, {stop()}")]
    run(chat, "one", "/bench", "two")
    assert "pp512  of fake, False" in chat.notes
    assert "the prefix cache is empty now" in chat.notes
    assert [turn.user for turn in chat.state.conversation.turns] == ["one", "two"]


def test_ctrl_c_stops_a_bench_and_shows_what_there_is() -> None:
    def measure(engine: object, tell: object, stop: Callable[[], bool]) -> list[tuple[str, str]]:
        signal.raise_signal(signal.SIGINT)
        return [("pp512", "half")] if stop() else [("pp512", "all")]

    chat = Chat(FakeEngine())
    chat.state.measure = measure
    run(chat, "/bench", "two")
    assert "pp512  half\n(stopped)" in chat.notes
    assert [turn.answer for turn in chat.state.conversation.turns] == ["Hello there."]


def test_bench_takes_no_words_and_says_where_there_are_options() -> None:
    chat = Chat(FakeEngine())
    run(chat, "/bench 512", "/bench")
    assert "error: /bench takes nothing\n" in chat.notes
    assert "error: there is nothing to measure with here" in chat.notes


@pytest.mark.parametrize("line", ["/think much", "/logprobs 21", "/logprobs maybe"])
def test_a_bad_switch_is_told(line: str) -> None:
    chat = Chat(FakeEngine())
    run(chat, line)
    assert "error: " in chat.notes
    assert LLMCliError.__name__ not in chat.notes
