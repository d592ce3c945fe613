"""How a prompt file is cut into pieces: the same ones however it is read, and never more than one in memory."""

import io
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.errors import UsageError
from llmcli.jobs.batch.sources import (
    MAX_LINE_BYTES,
    ArraySplitter,
    Form,
    Piece,
    detect_form,
    pieces,
    refuse_other_kinds,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def cut(data: bytes, form: Form, column: str | None = None) -> list[Piece]:
    return list(pieces(io.BytesIO(data), form, column))


def split(chunks: list[bytes], max_item_bytes: int = 1000) -> list[Piece]:
    splitter = ArraySplitter(max_item_bytes)
    return [piece for chunk in chunks for piece in splitter.push(chunk)] + list(splitter.end())


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


@given(
    st.lists(VALUES, max_size=6),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.lists(st.integers(min_value=0)),
)
def test_items_are_those_that_json_finds_however_the_array_is_chunked(
    values: list[Any], indent: int | None, ascii_only: bool, cuts: list[int]
) -> None:
    data = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode()
    found = split(chunked(b" " + data + b"\n", cuts), max_item_bytes=1 << 20)
    assert [piece.number for piece in found] == list(range(1, len(values) + 1))
    assert [json.loads(piece.data) for piece in found] == values


@given(st.binary(max_size=60), st.lists(st.integers(min_value=0), max_size=6))
def test_what_is_wrong_with_an_array_does_not_depend_on_the_chunks(data: bytes, cuts: list[int]) -> None:
    assert split(chunked(b"[" + data, cuts), 20) == split([b"[" + data], 20)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"[]", [], id="no item"),
        pytest.param(b"[1,2]", [Piece(1, b"1"), Piece(2, b"2")], id="two items"),
        pytest.param(b'["a,]\\"", 2]', [Piece(1, b'"a,]\\""'), Piece(2, b"2")], id="marks in a string"),
        pytest.param(b"[1,]", ["", "nothing between"], id="comma at the end"),
        pytest.param(b"[,1]", ["nothing between", ""], id="comma at the start"),
        pytest.param(b"[1, 2", ["", "] is missing"], id="cut off"),
        pytest.param(b"[1] 2 3", ["", "text after the end"], id="more after the end"),
        pytest.param(b"[1 2]", [Piece(1, b"1 2")], id="missing comma is for the parser"),
        pytest.param(b'["' + b"x" * 20 + b'", 2]', ["longer than 8 MiB", ""], id="too long"),
    ],
)
def test_arrays(data: bytes, expected: list[Piece | str]) -> None:
    found = split([data], max_item_bytes=20)
    assert len(found) == len(expected)
    for piece, wanted in zip(found, expected, strict=True):
        assert piece == wanted if isinstance(wanted, Piece) else wanted in piece.fault
        assert isinstance(wanted, Piece) or bool(wanted) == bool(piece.fault)


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\n\r", codec="utf-8"), min_size=1)))
def test_lines_end_at_newlines_and_nowhere_else(texts: list[str]) -> None:
    kept = [(number, text) for number, text in enumerate(texts, 1) if not text.encode().isspace()]
    data = "".join(text + "\n" for text in texts).encode()
    if not data.startswith(b"\xef\xbb\xbf"):
        assert [(piece.number, piece.data.decode()) for piece in cut(data, "jsonl")] == kept


def test_a_line_that_is_too_long_is_skipped_without_being_kept() -> None:
    long = b"x" * (MAX_LINE_BYTES + 1)
    assert [(piece.number, bool(piece.fault)) for piece in cut(b"a\n" + long + b"\nb\n", "txt")] == [
        (1, False),
        (2, True),
        (3, False),
    ]


@pytest.mark.parametrize(
    ("name", "data", "form"),
    [
        ("a.jsonl", b"[1]", "jsonl"),
        ("a.ndjson", b"", "jsonl"),
        ("a.JSONL", b"", "jsonl"),
        ("a.txt", b"{}", "txt"),
        ("a.csv", b"{}", "csv"),
        ("a.tsv", b"", "csv"),
        ("a.json", b" \n [1]", "json"),
        ("a.json", b'{"prompt": 1}\n', "jsonl"),
        ("a.json", b"\xef\xbb\xbf[", "json"),
        ("-", b"[1]", "json"),
        ("-", b'{"prompt": "a"}', "jsonl"),
        ("-", b'"a"', "jsonl"),
        ("-", b"tell me a story\n", "txt"),
        ("-", b"", "jsonl"),
        ("prompts", b"tell me a story\n", "txt"),
    ],
)
def test_the_form_goes_by_the_name_and_else_by_the_first_character(
    name: str, data: bytes, form: Form
) -> None:
    assert detect_form(name, io.BytesIO(data)) == form


def test_the_form_can_be_asked_for() -> None:
    assert detect_form("-", io.BytesIO(b"{"), "txt") == "txt"
    assert detect_form("a.txt", io.BytesIO(b"{"), "json") == "jsonl"
    assert detect_form("a.txt", io.BytesIO(b"["), "json") == "json"


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.xlsx"])
def test_other_kinds_of_files_are_refused_with_a_way_out(name: str) -> None:
    with pytest.raises(UsageError, match="files are not read") as raised:
        refuse_other_kinds(name)
    assert raised.value.fix


def rows(text: str, column: str | None = None) -> list[Any]:
    return [
        json.loads(piece.data) if piece.data else piece.fault for piece in cut(text.encode(), "csv", column)
    ]


def test_a_table_is_read_by_its_header() -> None:
    assert rows('label,prompt\nx,hello\n\ny,"two\nlines"\n') == [
        {"prompt": "hello", "meta": {"label": "x"}},
        {"prompt": "two\nlines", "meta": {"label": "y"}},
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separator_is_the_one_of_the_header(separator: str) -> None:
    assert rows(f"id{separator}text\n1{separator}hi\n") == [{"prompt": "hi", "id": "1"}]


def test_a_column_is_found_by_name_or_asked_for() -> None:
    assert rows("whatever\nhi\n") == [{"prompt": "hi"}]
    assert rows("a,Question\n1,hi\n") == [{"prompt": "hi", "meta": {"a": "1"}}]
    assert rows("a,prompt\nx,y\n", "a") == [{"prompt": "x", "meta": {"prompt": "y"}}]


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("a,b\n1,2\n", None, "which column holds the prompts"),
        ("a,b\n1,2\n", "c", "no column c; the first line of the table has: a, b"),
        ("a,a\n1,2\n", "a", "two columns of one name"),
        ('"a"b,c\n', None, "the first line of the table can not be read"),
    ],
)
def test_a_header_that_does_not_tell_is_refused(text: str, column: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        rows(text, column)


def test_a_bad_row_is_told_and_the_next_one_read() -> None:
    found = cut(b'prompt,id\na,1,2\nb,2\n"c"d,3\ne\xff,4\nf,5\n', "csv")
    assert [(piece.number, piece.fault.partition(":")[0]) for piece in found] == [
        (2, "3 cells, and the table's first line has 2"),
        (3, ""),
        (4, "not a row of a table"),
        (5, "not UTF-8"),
        (6, ""),
    ]


def test_an_empty_table_has_no_rows() -> None:
    assert rows("") == rows("prompt\n") == []


def test_a_table_may_begin_with_a_byte_order_mark() -> None:
    assert rows("\ufeffprompt\nhi\n") == [{"prompt": "hi"}]
