"""What is written when a chat changes gives the chat when it is read again, whatever was done to it."""

import json
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmcli.errors import RequestError
from llmcli.outputs import RequestStats
from llmcli.ui.conversation import Conversation, Turn
from llmcli.ui.sessions.records import (
    ChatSetup,
    SavedChat,
    changes,
    replay,
    setup_record,
    turns_of_messages,
)

META = {"type": "meta", "version": 1, "model": "tiny-chat"}
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
STATS = st.none() | st.builds(
    RequestStats, *[st.integers(0, 99)] * 3, *[st.floats(0, 99, allow_nan=False)] * 3
)


class ChatWithRecords(RuleBasedStateMachine):
    """Does to a conversation what commands do, and records it after each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conversation = Conversation()
        self.setup = ChatSetup("tiny-chat")
        self.known = SavedChat(self.setup)
        self.lines = [json.dumps(META)]

    def record(self) -> None:
        chat = SavedChat(self.setup, self.conversation.snapshot())
        records, self.known = changes(self.known, chat)
        self.lines += [json.dumps(record) for record in records]

    @rule(text=TEXT)
    def ask(self, text: str) -> None:
        if not self.conversation.awaits_answer:
            self.conversation.add_user(text)
        self.record()

    @rule(
        text=st.text(max_size=8),
        reason=st.sampled_from(["stop", "length", "abort"]),
        thought=TEXT,
        stats=STATS,
    )
    def answer(self, text: str, reason: Any, thought: str, stats: RequestStats | None) -> None:
        if self.conversation.awaits_answer:
            self.conversation.add_answer(text, reason, reasoning=thought, stats=stats)
        self.record()

    @precondition(lambda self: self.conversation.turns and not self.conversation.awaits_answer)
    @rule(keep=st.booleans())
    def reopen(self, keep: bool) -> None:
        self.conversation.reopen(keep_answer=keep)
        self.record()

    @precondition(lambda self: not self.conversation.awaits_answer)
    @rule(count=st.integers(1, 4), text=TEXT)
    def edit(self, count: int, text: str) -> None:
        self.conversation.undo(count)
        self.conversation.add_user(text)
        self.record()

    @rule(count=st.integers(1, 3))
    def undo(self, count: int) -> None:
        self.conversation.undo(count)
        self.record()

    @rule()
    def clear(self) -> None:
        self.conversation.clear()
        self.record()

    @rule(system=st.none() | TEXT, temperature=st.floats(0, 2))
    def set(self, system: str | None, temperature: float) -> None:
        self.setup = ChatSetup("tiny-chat", system=system, params={"temperature": temperature})
        self.record()

    @invariant()
    def the_records_give_the_chat(self) -> None:
        read = replay([json.loads(line) for line in self.lines])
        assert read.setup == self.setup
        if not self.conversation.awaits_answer:
            assert read.turns == self.conversation.snapshot()
        else:
            assert read.turns[:-1] == self.conversation.snapshot()[:-1]
            assert read.turns[-1].user == self.conversation.turns[-1].user


TestChatWithRecords = ChatWithRecords.TestCase


def test_a_question_that_was_never_answered_is_kept_without_an_answer() -> None:
    assert replay([META, {"role": "user", "content": "hi"}]).turns == (Turn("hi", "", finish_reason="abort"),)


def test_an_answer_that_is_being_written_anew_leaves_the_old_one_until_it_is_there() -> None:
    setup = ChatSetup("m")
    before = SavedChat(setup, (Turn("hi", "old", finish_reason="stop"),))
    records, reached = changes(before, SavedChat(setup, (Turn("hi"),)))
    assert (records, reached) == ([], before)
    records, _ = changes(reached, SavedChat(setup, (Turn("hi", "new", finish_reason="stop"),)))
    assert records == [{"role": "assistant", "content": "new", "finish_reason": "stop", "replaces": True}]


def test_nothing_changed_writes_nothing() -> None:
    chat = SavedChat(ChatSetup("m"), (Turn("hi", "hello"),))
    assert changes(chat, chat) == ([], chat)


def test_answers_are_openai_messages_with_usage_and_timings() -> None:
    turn = Turn(
        "hi",
        "hello",
        reasoning="a greeting",
        finish_reason="stop",
        stats=RequestStats(9, 4, 2, 0.1, 0.2, 0.3),
    )
    (user, answer), _ = changes(SavedChat(ChatSetup("m")), SavedChat(ChatSetup("m"), (turn,)))
    assert user == {"role": "user", "content": "hi"}
    assert answer["reasoning_content"] == "a greeting"
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
    assert answer["timings"] == {"queue_s": 0.1, "ttft_s": 0.2, "total_s": 0.3}


def test_what_is_not_set_is_not_written() -> None:
    assert setup_record(ChatSetup("m")) == {"model": "m"}


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], "line 1: there is no meta record"),
        ([{"role": "user", "content": "hi"}], "line 1: is no meta record"),
        ([META | {"version": 2}], "line 1: format version 2"),
        ([{"type": "meta", "version": 1}], "line 1: names no model"),
        ([META | {"params": [1]}], "line 1: params must not be"),
        ([META, {"role": "assistant", "content": "x"}], "line 2: an answer without a question"),
        ([META, {"role": "user", "content": 7}], "line 2: content must be a string, got 7"),
        ([META, {"event": "undo", "turns": 1}], "line 2: undo of 1 turns, there are 0"),
        ([META, {"event": "undo", "turns": True}], "line 2: undo of True turns"),
        ([META, {"event": "explode"}], "line 2: neither a message"),
        (
            [
                META,
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "", "finish_reason": "x"},
            ],
            "line 3: finish_reason",
        ),
    ],
)
def test_what_is_no_session_is_refused_with_its_line(records: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        replay(records)
    assert str(caught.value).startswith(said)


def test_openai_messages_become_turns() -> None:
    system, turns = turns_of_messages(
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": "hello", "reasoning_content": "hm"},
            {"role": "user", "content": "bye"},
        ]
    )
    assert system == "be brief"
    assert [(turn.user, turn.answer, turn.reasoning) for turn in turns] == [
        ("hi", "hello", "hm"),
        ("bye", "", ""),
    ]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        ["hi"],
        [{"role": "assistant", "content": "x"}],
        [{"role": "user", "content": "x"}, {"role": "system", "content": "late"}],
        [{"role": "user", "content": None}],
    ],
)
def test_messages_that_are_no_conversation_of_text_are_refused(messages: list[Any]) -> None:
    with pytest.raises(RequestError):
        turns_of_messages(messages)
