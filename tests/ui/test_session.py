"""A chat over a scripted engine: answers, commands, Ctrl-C, a full context, errors."""

import io
import signal

import pytest

from llmcli.errors import CheckpointError, EngineError
from llmcli.ui.loading import Loader
from llmcli.ui.session import ChatSession
from llmcli.ui.view import PlainView
from llmcli.ui.waiting import Waiting
from tests.ui.fake_engine import Chat, FakeEngine, Lines, Script


def run(chat: Chat, *lines: str, first: str | None = None) -> str:
    out = io.StringIO()
    ChatSession(chat.state, Lines(*lines), lambda: PlainView(out)).run(first)
    return out.getvalue()


def users(chat: Chat) -> list[str]:
    return [turn.user for turn in chat.state.conversation.turns]


def test_each_message_is_answered_and_the_model_sees_what_was_said_before() -> None:
    engine = FakeEngine([Script(("Good", " day")), Script(("Bye",))])
    assert run(Chat(engine), "hi", "see you") == "Good day\nBye\n"
    encode = engine.tokenizer.encode_chat
    said = [{"content": text} for text in ("hi", "Good day", "see you")]
    assert engine.prompts == [encode(said[:1]), encode(said)]


def test_stats_follow_each_answer_unless_switched_off() -> None:
    chat = Chat(FakeEngine())
    run(chat, "hi")
    assert "TTFT 0.25 s · 2.0 tok/s · 3 tok · prompt 2 · ctx 5/100 (5 %)" in chat.notes
    quiet = Chat(FakeEngine())
    run(quiet, "/set stats off", "hi")
    assert "TTFT" not in quiet.notes


def test_the_first_message_is_sent_as_it_is() -> None:
    chat = Chat(FakeEngine())
    run(chat, first="/exit is a word")
    assert users(chat) == ["/exit is a word"]


def test_exit_ends_the_chat() -> None:
    chat = Chat(FakeEngine())
    run(chat, "/exit", "never sent")
    assert users(chat) == []


def test_an_unknown_command_never_reaches_the_model() -> None:
    chat = Chat(FakeEngine())
    run(chat, "/staus", "!halp")
    assert chat.engine.prompts == []
    assert "did you mean /status?" in chat.notes
    assert "did you mean /help?" in chat.notes


def test_ctrl_c_stops_the_answer_and_keeps_the_chat() -> None:
    chat = Chat(FakeEngine([Script(("Once", " upon"), interrupted=True), Script(("Yes",))]))
    assert run(chat, "tell me", "go on") == "Once upon\nYes\n"
    assert chat.state.conversation.turns[0].answer == "Once upon"
    assert chat.state.conversation.turns[0].stopped
    assert "(stopped)" in chat.notes


def test_ctrl_c_at_the_end_of_an_answer_keeps_the_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = Chat(FakeEngine([Script(("one",)), Script(("two",))]))
    say, presses = chat.state.notes.say, iter([True, False])

    def say_and_press(text: str, style: str = "") -> None:
        say(text, style)
        if next(presses):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(chat.state.notes, "say", say_and_press)
    assert run(chat, "hi", "again") == "one\ntwo\n"
    assert [turn.answer for turn in chat.state.conversation.turns] == ["one", "two"]


def test_regen_asks_again_with_a_new_seed_that_is_told() -> None:
    chat = Chat(FakeEngine([Script(("one",)), Script(("two",))]), {"seed": 7})
    run(chat, "hi", "/regen")
    assert chat.engine.prompts[0] == chat.engine.prompts[1]
    first, second = (params.seed for params in chat.engine.params)
    assert first == 7
    assert second not in (7, None)
    assert f"seed {second}" in chat.notes
    assert [turn.answer for turn in chat.state.conversation.turns] == ["two"]


def test_regen_of_a_greedy_answer_says_that_it_will_be_the_same() -> None:
    chat = Chat(FakeEngine(), {"temperature": 0.0})
    run(chat, "hi", "/regen")
    assert "temperature is 0" in chat.notes


def test_regen_that_can_not_be_asked_keeps_the_old_answer() -> None:
    chat = Chat(FakeEngine([Script(("one",))]))
    run(chat, "hi", "/system " + "long " * 200, "/regen")
    assert [turn.answer for turn in chat.state.conversation.turns] == ["one"]
    assert "error: the message and the system prompt take" in chat.notes


def test_parameters_reach_the_engine() -> None:
    chat = Chat(FakeEngine(generation_defaults={"top_k": 40}), {"temperature": 0.5})
    run(chat, "/set top_p 0.9", "hi")
    params = chat.engine.params[0]
    assert (params.temperature, params.top_p, params.top_k) == (0.5, 0.9, 40)


def test_old_turns_that_no_longer_fit_are_left_out_with_a_line_that_says_so() -> None:
    chat = Chat(FakeEngine(max_model_len=20))
    run(chat, "a a a a", "b b b b", "c c c c")
    assert "the oldest turn no longer fits the context of 20 tokens" in chat.notes
    assert all(len(prompt) < 20 for prompt in chat.engine.prompts)
    assert len(users(chat)) == 3


def test_a_message_that_can_not_fit_is_an_error_with_both_numbers_and_the_chat_goes_on() -> None:
    chat = Chat(FakeEngine(max_model_len=20))
    run(chat, "w " * 50, "hi")
    assert "error: the message takes 51 tokens, the context holds 20" in chat.notes
    assert users(chat) == ["hi"]


def test_an_answer_cut_by_the_context_or_by_max_tokens_says_which() -> None:
    chat = Chat(FakeEngine([Script(("w",) * 17, "length")], max_model_len=20))
    run(chat, "one two")
    assert "cut: the context of 20 tokens is full" in chat.notes
    chat = Chat(FakeEngine([Script(("w",) * 3, "length")]), {"max_tokens": 3})
    run(chat, "hi")
    assert "cut at max_tokens 3" in chat.notes


def test_a_failed_answer_is_told_and_the_chat_goes_on() -> None:
    chat = Chat(FakeEngine([Script(("He",), "error", "logits are not finite"), Script(("fine",))]))
    assert run(chat, "hi", "again") == "He\nfine\n"
    assert "error: the answer failed: logits are not finite" in chat.notes


def test_a_model_without_chat_template_gets_the_bare_message_and_nothing_else() -> None:
    chat = Chat(FakeEngine(chat_template=None))
    run(chat, "/system be brief", "Once upon a", "the end")
    assert chat.engine.prompts == [[4, 4, 1], [3, 3]]
    assert chat.notes.count("no chat template") == 1
    assert "no longer fit" not in chat.notes


def test_a_model_that_can_not_be_loaded_ends_the_chat_with_its_error() -> None:
    def fail(on_phase: object) -> None:
        raise CheckpointError("model.safetensors is truncated")

    chat = Chat(FakeEngine())
    loader = Loader(fail)  # type: ignore[arg-type]
    chat.state.backend = Waiting(loader, "fake", chat.state.notes, chat.state.parameters, verbose=False)
    loader.start()
    with pytest.raises(CheckpointError, match="truncated"):
        run(chat, "hi")


def test_a_dead_engine_ends_the_chat() -> None:
    class DeadEngine(FakeEngine):
        def submit(self, prompt_token_ids: object, params: object) -> None:  # type: ignore[override]
            raise EngineError("the engine stopped")

    with pytest.raises(EngineError):
        run(Chat(DeadEngine()), "hi")


def test_a_single_turn_session_ends_after_its_first_answer() -> None:
    chat = Chat(FakeEngine())
    out = io.StringIO()
    ChatSession(chat.state, Lines("/status", "hi", "never sent"), lambda: PlainView(out)).run_once()
    assert users(chat) == ["hi"]
    assert out.getvalue() == "Hello there.\n"


def test_verbose_tells_the_plan_and_the_origins_once() -> None:
    chat = Chat(FakeEngine(), {"temperature": 0.5}, verbose=True)
    run(chat, "hi", "again")
    assert chat.notes.count("weights 1.0 MiB") == 1
    assert "0.5 (flag)" in chat.notes
    assert "none of the model's own" in chat.notes


def answers(chat: Chat) -> list[str | None]:
    return [turn.answer for turn in chat.state.conversation.turns]


def test_what_was_computed_is_used_again_and_the_stats_say_so() -> None:
    chat = Chat(FakeEngine())
    run(chat, "one two", "/regen", "three")
    first, again, longer = chat.engine.prompts
    assert first == again == longer[: len(first)]
    assert chat.notes.count("prompt 3 (3 cached)") == 1
    assert "prompt 8 (3 cached)" in chat.notes


def test_edit_puts_the_message_into_the_prompt_and_answers_what_comes_back() -> None:
    chat = Chat(FakeEngine([Script((word,)) for word in ("1", "2", "3")]))
    reader = Lines("one", "two", "/edit 2", "changed")
    ChatSession(chat.state, reader, lambda: PlainView(io.StringIO())).run()
    assert reader.drafts == ["", "", "", "one", ""]
    assert (users(chat), answers(chat)) == (["changed"], ["3"])


@pytest.mark.parametrize("line", ["", "/status"])
def test_an_edit_that_is_not_sent_changes_nothing(line: str) -> None:
    chat = Chat(FakeEngine())
    run(chat, "one", "/edit", line, "two")
    assert users(chat) == ["one", "two"]
    assert "nothing was changed" in chat.notes


def test_an_edited_message_that_can_not_be_asked_leaves_the_old_one_and_is_not_lost() -> None:
    chat = Chat(FakeEngine())
    reader = Lines("one", "/edit", "w " * 200, "")
    ChatSession(chat.state, reader, lambda: PlainView(io.StringIO())).run()
    assert users(chat) == ["one"]
    assert reader.drafts[3] == "w " * 200


def test_editing_a_message_that_is_not_there_is_told() -> None:
    chat = Chat(FakeEngine())
    run(chat, "/edit", "one", "/edit 2")
    assert "error: there is no message yet" in chat.notes
    assert "error: there is no message 2 back, there are 1" in chat.notes


def test_continue_goes_on_where_the_answer_stopped() -> None:
    chat = Chat(FakeEngine([Script(("Once", " upon"), interrupted=True), Script((" a time.",))]))
    assert run(chat, "tell me", "/continue") == "Once upon\n a time.\n"
    assert answers(chat) == ["Once upon a time."]
    assert chat.engine.prompts[1] == [0, 4, 2, 0, 4, 4]
    assert "going on after “… Once upon”" in chat.notes


def test_an_answer_to_which_the_model_adds_nothing_is_told_to_be_complete() -> None:
    chat = Chat(FakeEngine([Script(("All.",)), Script(())]))
    run(chat, "hi", "/continue")
    assert "nothing was added: the model takes the answer for complete" in chat.notes
    assert answers(chat) == ["All."]


def test_an_answer_cut_at_a_limit_says_how_to_go_on() -> None:
    chat = Chat(FakeEngine([Script(("w",) * 3, "length")]), {"max_tokens": 3})
    run(chat, "hi")
    assert "cut at max_tokens 3; /continue goes on" in chat.notes


def test_a_continuation_that_is_refused_keeps_the_answer() -> None:
    chat = Chat(FakeEngine())
    run(chat, "hi", "/system " + "long " * 200, "/continue")
    assert answers(chat) == ["Hello there."]


def test_a_prefill_begins_each_answer_on_the_screen_and_for_the_model() -> None:
    chat = Chat(FakeEngine([Script((" are red",)), Script((" are blue",))]))
    chat.state.prefill = "Roses"
    assert run(chat, "a poem", "/regen") == "Roses are red\nRoses are blue\n"
    assert answers(chat) == ["Roses are blue"]
    assert chat.engine.prompts[0] == [0, 1, 4, 0, 5]


def test_a_full_context_can_be_an_error_instead_of_forgetting() -> None:
    chat = Chat(FakeEngine(max_model_len=20))
    chat.state.drop_turns = False
    run(chat, "a a a a", "b b b b", "c c c c")
    assert "error: the conversation takes 21 tokens, the context holds 20" in chat.notes
    assert users(chat) == ["a a a a", "b b b b"]


def test_another_model_goes_on_with_the_conversation() -> None:
    other = FakeEngine()
    chat = Chat(FakeEngine(), others={"other": other})
    run(chat, "hi", "/model", "/model other", "more", "/model other")
    assert "* fake\n  other" in chat.notes
    assert chat.engine.closed
    assert len(other.prompts) == 1
    assert len(users(chat)) == 2
    assert "other is in use already" in chat.notes


def test_a_model_that_is_not_there_leaves_the_one_in_use() -> None:
    chat = Chat(FakeEngine())
    run(chat, "hi", "/model nope", "more")
    assert "error: no model nope" in chat.notes
    assert len(chat.engine.prompts) == 2


def test_a_model_that_can_not_be_loaded_gives_the_one_before_back_and_loses_no_message() -> None:
    chat = Chat(FakeEngine(), others={"huge": None})
    reader = Lines("hi", "/load huge", "what now", "what now")
    ChatSession(chat.state, reader, lambda: PlainView(io.StringIO())).run()
    assert "error: huge is too big" in chat.notes
    assert "going back to fake" in chat.notes
    assert reader.drafts[3] == "what now"
    assert users(chat) == ["hi", "what now"]


def test_sampling_stays_when_the_model_changes() -> None:
    other = FakeEngine(generation_defaults={"top_k": 9})
    chat = Chat(FakeEngine(), {"temperature": 0.5}, others={"other": other})
    run(chat, "/set top_p 0.9", "/model other", "hi")
    assert (other.params[0].temperature, other.params[0].top_p, other.params[0].top_k) == (0.5, 0.9, 9)


class Recorder:
    """A view that remembers what it was given."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.num_thinking_tokens = 0
        self.closed = False

    def think(self, text: str, num_tokens: int, *, cut: bool = False) -> None:
        self.shown.append(f"({text})")
        self.num_thinking_tokens += num_tokens

    def push(self, text: str) -> None:
        self.shown += [text] if text else []

    def close(self) -> None:
        self.closed = True


def recorded(chat: Chat) -> Recorder:
    view = Recorder()
    ChatSession(chat.state, Lines("hi"), lambda: view).run()
    return view


def test_reasoning_is_shown_apart_and_kept_apart() -> None:
    chat = Chat(FakeEngine([Script(("<think>", "let me", " see", "</think>", "\n\n", "42", "!"))]))
    view = recorded(chat)
    assert "".join(view.shown).replace("()", "") == "(let me)( see)42!"
    assert view.num_thinking_tokens == 4
    [turn] = chat.state.conversation.turns
    assert (turn.answer, turn.reasoning) == ("42!", "let me see")
    assert chat.state.conversation.last_reasoning() == "let me see"


def test_reasoning_that_the_prompt_opened_is_known_as_such() -> None:
    view = recorded(Chat(FakeEngine([Script(("hm", "</think>", "42"))], prompt_end="assistant\n<think>\n")))
    assert "".join(view.shown).replace("()", "") == "(hm)42"
    assert view.num_thinking_tokens == 2


def test_reasoning_goes_to_the_template_under_its_own_name_and_not_as_text() -> None:
    chat = Chat(FakeEngine([Script(("<think>hm</think>42",))]))
    run(chat, "hi")
    assert chat.state.conversation.messages()[1] == {
        "role": "assistant",
        "content": "42",
        "reasoning_content": "hm",
    }


def test_an_answer_that_was_stopped_while_it_was_thinking_is_empty() -> None:
    chat = Chat(FakeEngine([Script(("<think>", "hm"), interrupted=True), Script(("Yes",))]))
    assert run(chat, "hi", "again") == "\nYes\n"
    assert [turn.reasoning for turn in chat.state.conversation.turns] == ["hm", ""]


def test_a_view_is_closed_when_showing_fails() -> None:
    class Broken(Recorder):
        def push(self, text: str) -> None:
            raise BrokenPipeError

    chat, view = Chat(FakeEngine()), Broken()
    with pytest.raises(BrokenPipeError):
        ChatSession(chat.state, Lines("hi"), lambda: view).run()
    assert view.closed
    assert chat.engine.streams[0].aborted.is_set()
