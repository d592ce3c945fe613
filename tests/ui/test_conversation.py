"""What the model sees of a conversation, and how it is made to fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.errors import RequestError
from llmcli.outputs import RequestStats
from llmcli.ui.conversation import ChatPrompt, Conversation
from tests.ui.fake_engine import WordTokenizer


def encode(chat: ChatPrompt) -> list[int]:
    return WordTokenizer().encode_chat(chat.messages)


def encoded(conversation: Conversation) -> list[int]:
    return encode(conversation.prompt())


def used(count: int) -> RequestStats:
    return RequestStats(count - 1, 0, 1, 0.0, 0.0, 0.0)


def talk(*turns: tuple[str, str], system: str | None = None) -> Conversation:
    conversation = Conversation(system)
    for user, answer in turns:
        conversation.add_user(user)
        conversation.add_answer(answer)
    return conversation


def test_messages_alternate_and_begin_with_the_system_prompt() -> None:
    conversation = talk(("hi", "hello"), system="be brief")
    conversation.add_user("bye")
    assert [(m["role"], m["content"]) for m in conversation.messages()] == [
        ("system", "be brief"),
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "bye"),
    ]


def test_a_partial_answer_stays_and_is_marked() -> None:
    conversation = Conversation()
    conversation.add_user("count")
    conversation.add_answer("one two", "abort")
    assert conversation.turns[0].stopped
    assert conversation.messages()[-1] == {"role": "assistant", "content": "one two"}


def test_a_turn_stopped_before_its_first_word_is_not_shown_to_the_model() -> None:
    conversation = talk(("hi", ""))
    conversation.add_user("again")
    assert conversation.messages() == [{"role": "user", "content": "again"}]


def test_reopen_awaits_another_answer_to_the_last_message() -> None:
    conversation = talk(("hi", "hello"))
    conversation.reopen()
    assert conversation.messages() == [{"role": "user", "content": "hi"}]
    assert not conversation.prompt().continues


def test_an_answer_that_is_kept_open_is_the_last_message_and_what_comes_is_added_to_it() -> None:
    conversation = talk(("hi", "hel"))
    conversation.reopen(keep_answer=True)
    assert conversation.prompt().continues
    assert conversation.messages()[-1] == {"role": "assistant", "content": "hel"}
    conversation.add_answer("lo")
    assert conversation.turns[-1].answer == "hello"
    assert not conversation.prompt().continues


def test_a_prefill_begins_the_answer() -> None:
    conversation = Conversation()
    conversation.add_user("a poem", "Roses")
    assert conversation.prompt().continues
    conversation.add_answer(" are red")
    assert conversation.turns[-1].answer == "Roses are red"


def test_reasoning_goes_along_for_the_template_to_take_or_leave() -> None:
    conversation = Conversation()
    conversation.add_user("hi")
    conversation.add_answer("hello", reasoning="a greeting")
    assert conversation.messages()[-1]["reasoning_content"] == "a greeting"


def test_restore_puts_back_what_was() -> None:
    conversation = talk(("hi", "hello"), ("bye", "see you"))
    before = conversation.snapshot()
    conversation.undo(2)
    conversation.add_user("too long")
    conversation.restore(before)
    assert conversation.snapshot() == before


def test_undo_takes_back_turns_from_the_end() -> None:
    conversation = talk(("a", "1"), ("b", "2"), ("c", "3"))
    assert [turn.user for turn in conversation.undo(2)] == ["b", "c"]
    assert [turn.user for turn in conversation.undo(5)] == ["a"]
    assert conversation.undo() == []


def test_clear_keeps_the_system_prompt() -> None:
    conversation = talk(("a", "1"), system="be brief")
    conversation.clear()
    assert conversation.turns == []
    assert conversation.messages() == [{"role": "system", "content": "be brief"}]


def test_used_tokens_are_those_of_the_last_turn_that_is_left() -> None:
    conversation = Conversation()
    for number in (5, 9):
        conversation.add_user("x")
        conversation.add_answer("y", stats=used(number))
    assert conversation.used_tokens == 9
    conversation.undo()
    assert conversation.used_tokens == 5
    conversation.add_user("x")
    conversation.add_answer("stopped by the user of a server")
    assert conversation.used_tokens == 5


def test_fit_leaves_a_short_conversation_alone() -> None:
    conversation = talk(("hi", "hello"))
    conversation.add_user("bye")
    prompt = conversation.fit(encode, 100)
    assert prompt.num_dropped == 0
    assert list(prompt.token_ids or ()) == encoded(conversation)


def test_fit_hides_the_oldest_turns_keeps_the_system_prompt_and_forgets_nothing() -> None:
    conversation = talk(("a a a a a a", "1 1 1"), ("b b b", "2 2 2"), system="be brief")
    conversation.add_user("c c")
    # system 3 + second turn 8 + open 3 = 14, and 5 of 20 are kept for the answer; the first turn has 11
    prompt = conversation.fit(encode, 20)
    assert prompt.num_dropped == 1
    assert [m["content"] for m in conversation.messages()] == ["be brief", "b b b", "2 2 2", "c c"]
    assert len(conversation.turns) == 3


def test_a_small_max_tokens_keeps_less_free() -> None:
    conversation = talk(("a a a a a a", "1 1 1"))
    conversation.add_user("c c")
    assert conversation.fit(encode, 16, max_tokens=1).num_dropped == 0
    assert conversation.fit(encode, 16, max_tokens=9).num_dropped == 1


def test_a_single_message_may_use_the_room_kept_for_answers() -> None:
    conversation = Conversation()
    conversation.add_user("w " * 18)
    assert len(conversation.fit(encode, 20).token_ids or ()) == 19


def test_a_message_that_does_not_fit_alone_is_refused_with_both_numbers() -> None:
    conversation = talk(("hi", "hello"))
    conversation.add_user("w " * 30)
    with pytest.raises(RequestError, match=r"31 tokens, the context holds 20"):
        conversation.fit(encode, 20)
    assert conversation.num_dropped == 0


def test_without_dropping_a_full_context_is_an_error_that_tells_how_to_make_room() -> None:
    conversation = talk(("a " * 9, "1 " * 9))
    conversation.add_user("b")
    with pytest.raises(
        RequestError, match=r"the conversation takes 22 tokens, the context holds 20"
    ) as caught:
        conversation.fit(encode, 20, drop=False)
    assert "/undo" in caught.value.fix
    assert conversation.num_dropped == 0


def test_nothing_is_hidden_where_only_a_server_can_count() -> None:
    conversation = talk(("a " * 99, "1"))
    conversation.add_user("b")
    assert conversation.fit(lambda chat: None, 20).num_dropped == 0
    assert conversation.hide_oldest()
    assert not conversation.hide_oldest()


def test_undo_lets_hidden_turns_be_seen_again() -> None:
    conversation = talk(("a a a a a a", "1 1 1"))
    conversation.add_user("c " * 12)
    assert conversation.fit(encode, 20).num_dropped == 1
    conversation.add_answer("ok")
    conversation.undo()
    conversation.add_user("c")
    assert conversation.fit(encode, 20).num_dropped == 0


@given(sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=8), limit=st.integers(12, 60))
def test_whatever_is_said_the_prompt_fits_and_holds_the_newest_turns(
    sizes: list[tuple[int, int]], limit: int
) -> None:
    conversation = talk(*[("u " * user, "a " * answer) for user, answer in sizes])
    conversation.add_user("last question")
    prompt = conversation.fit(encode, limit)
    assert len(prompt.token_ids or ()) < limit
    assert conversation.messages()[-1]["content"] == "last question"
    assert list(prompt.token_ids or ()) == encoded(conversation)
    if conversation.num_dropped:
        conversation.num_dropped -= 1
        assert len(encoded(conversation)) + min(256, limit // 4) > limit, "one turn more would have fitted"
