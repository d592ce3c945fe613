"""The stream of events: read by the rules of the standard, and refused where it breaks them."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.ui.remote.server_sent_events import MAX_LINE, events


def read(data: bytes) -> list[dict[str, object]]:
    return list(events(io.BytesIO(data).readline))


def test_each_event_is_a_json_object_until_done() -> None:
    assert read(b'data: {"a": 1}\n\ndata:{"b": 2}\n\ndata: [DONE]\n\ndata: {"c": 3}\n\n') == [
        {"a": 1},
        {"b": 2},
    ]


def test_comments_other_fields_and_crlf_are_understood() -> None:
    assert read(b': ping\r\nevent: message\r\nid: 7\r\ndata: {"a": 1}\r\n\r\n\r\n') == [{"a": 1}]


def test_several_data_lines_are_one_event() -> None:
    assert read(b'data: {"a":\ndata: 1}\n\n') == [{"a": 1}]


def test_an_event_that_is_cut_off_is_no_event() -> None:
    whole = b'data: {"a": 1}\n\ndata: {"b": 2}\n\n'
    for length in range(len(whole)):
        assert read(whole[:length]) == [{"a": 1}][: int(length > 15)]


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3), max_size=4))
def test_what_a_server_writes_comes_out(values: list[dict[str, str]]) -> None:
    data = "".join(f"data: {json.dumps(value, ensure_ascii=False)}\n\n" for value in values)
    assert read(data.encode()) == values


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"data: {nonsense}\n\n", "an event is not JSON"),
        (b'data: {"a": NaN}\n\n', "not JSON"),
        (b"data: [1]\n\n", "not a JSON object"),
        (b"data: \xff\n\n", "not UTF-8"),
        (b"data: " + b"x" * MAX_LINE + b"\n\n", "longer than"),
    ],
)
def test_what_breaks_the_rules_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(data)
