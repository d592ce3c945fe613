"""One prompt, one answer: exact bytes on stdout, everything else apart."""

import io

import pytest

from llmcli.errors import EngineError, RequestError
from llmcli.ui.once import SilentView, answer_once, answer_record
from llmcli.ui.view import PlainView
from tests.ui.fake_engine import Chat, FakeEngine, Script


def run(chat: Chat, text: str = "hi") -> bytes:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")
    answer_once(chat.state, text, lambda: PlainView(out))
    return raw.getvalue()


def test_stdout_holds_the_answer_and_one_newline() -> None:
    chat = Chat(FakeEngine([Script(("A cat.\n", "\n\x1b[31m", "Über 🐈", "\n\n"))]))
    assert run(chat) == "A cat.\n\nÜber 🐈\n".encode()
    assert "TTFT" in chat.notes


def test_stats_can_be_off() -> None:
    chat = Chat(FakeEngine())
    chat.state.show_stats = False
    run(chat)
    assert chat.notes == ""


def test_an_answer_that_was_cut_says_so_beside_stdout() -> None:
    chat = Chat(FakeEngine([Script(("a",) * 2, "length")]), {"max_tokens": 2})
    assert run(chat) == b"aa\n"
    assert "cut at max_tokens 2" in chat.notes


def test_a_failure_is_an_error_after_what_came() -> None:
    with pytest.raises(EngineError, match="not finite"):
        run(Chat(FakeEngine([Script(("He",), "error", "logits are not finite")])))


def test_ctrl_c_stops_the_answer_and_the_program() -> None:
    chat = Chat(FakeEngine([Script(("He",), interrupted=True)]))
    with pytest.raises(KeyboardInterrupt):
        run(chat)
    assert chat.engine.streams[0].aborted.is_set()


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers() -> None:
    with pytest.raises(RequestError, match=r"21 tokens, the context holds 10"):
        run(Chat(FakeEngine(max_model_len=10)), "w " * 20)


class ClosedPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_went_away_stops_the_generation() -> None:
    chat = Chat(FakeEngine())
    with pytest.raises(BrokenPipeError):
        answer_once(chat.state, "hi", lambda: PlainView(ClosedPipe()))
    assert chat.engine.streams[0].aborted.is_set()


def test_files_go_with_the_prompt_or_are_it() -> None:
    chat = Chat(FakeEngine())
    chat.state.attachments = ["from a file"]
    run(chat, "")
    assert chat.state.conversation.turns[0].user == "from a file"


def test_the_answer_as_a_json_object_has_the_prefill_and_the_counts() -> None:
    chat = Chat(FakeEngine())
    chat.state.prefill = "Oh. "
    record = answer_record(chat.state, answer_once(chat.state, "hi", SilentView))
    assert (record["text"], record["model"], record["finish_reason"]) == ("Oh. Hello there.", "fake", "stop")
    assert record["usage"]["completion_tokens"] == 3
