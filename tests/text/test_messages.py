"""Which chats are refused, and how the error names the place."""

import pytest

from llmcli.errors import RequestError
from llmcli.text.messages import MAX_DEPTH, check_messages, plain_json, plain_messages

USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ([], "messages"),
        (None, "messages"),
        ("hi", "messages"),
        ({"role": "user"}, "messages"),
        (["hi"], "messages[0]"),
        ([{"content": "hi"}], "messages[0].role"),
        ([{"role": "boss\x1b[2J", "content": "hi"}], "messages[0].role"),
        ([{"role": ["user"], "content": "hi"}], "messages[0].role"),
        ([USER, {"role": "user"}], "messages[1].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": ["hi"]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text", "text": 1}]}], "messages[0].content[0].text"),
        ([USER, {"role": "assistant", "content": "yes"}], "messages[1].role"),
        ([{"role": "assistant", "content": None}, USER], "messages[0].content"),
        ([{"role": "assistant", "tool_calls": "x", "content": ""}, USER], "messages[0].tool_calls"),
        ([USER, {"role": "tool", "content": "4"}], "messages[1].tool_call_id"),
        ([USER, {"role": "tool", "content": "4", "tool_call_id": ""}], "messages[1].tool_call_id"),
    ],
)
def test_a_bad_chat_is_refused_by_index_and_field(messages: object, place: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_messages(messages)
    assert caught.value.param == place
    assert place in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [{"role": "system", "content": ""}, USER],
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        [USER, {"role": "assistant", "content": "ok"}, USER],
        [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "tool_call_id": "1", "content": "4"},
        ],
    ],
)
def test_a_good_chat_passes(messages: list[dict[str, object]]) -> None:
    check_messages(messages)


def test_only_an_answer_can_be_continued() -> None:
    check_messages([USER, {"role": "assistant", "content": "Once"}], continue_final_message=True)
    with pytest.raises(RequestError, match=r"messages\[0\].role must be assistant"):
        check_messages([USER], continue_final_message=True)


def test_text_parts_are_joined_and_missing_values_left_out() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert plain_messages([{"role": "user", "content": parts, "name": None}]) == [
        {"role": "user", "content": "a\nb"}
    ]


def test_plain_values_are_copies() -> None:
    given = {"a": ["x", 1, None, True]}
    plain = plain_json(given, "tools")
    assert plain == given
    assert plain["a"] is not given["a"]


def test_what_is_no_json_or_nested_too_deep_is_refused() -> None:
    deep: list[object] = []
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    for value in (deep, {"x": object()}, b"bytes"):
        with pytest.raises(RequestError, match="tools"):
            plain_json(value, "tools")
