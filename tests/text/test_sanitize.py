"""The terminal stripper against a table of sequences, and against itself for every way to cut a text."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.text.sanitize import MAX_SWALLOWED, Sanitizer, sanitize

ALPHABET = (
    "\x1b[]PX^_\\;:?0123mJKhlabc é中\u202e !/@~\r\n\t\x00\x07\x08\x18\x1a\x7f"
    "\x80\x84\x85\x90\x98\x9b\x9c\x9d\x9e\x9f\u2066\u200f\u200d"
)

BIDIRECTIONAL = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def strip(text: str) -> str:
    return sanitize(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, tab\tand\nnewline é 中 😀", "plain, tab\tand\nnewline é 中 😀"),
        ("a\x1b[31mred\x1b[0mb", "aredb"),
        ("a\x1b[2J\x1b[Hb", "ab"),
        ("a\x1b[?1049hb", "ab"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]52;c;aGVsbG8=\x1b\\b", "ab"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x1bPq#0;2;0;0;0\x1b\\b", "ab"),
        ("a\x1b_app\x9cb\x1b^pm\x9cc\x1bXsos\x9cd", "abcd"),
        ("a\x9b31mb\x9d0;t\x9cc\x90q\x9cd", "abcd"),
        ("a\x1b(Bb\x1b)0c\x1b#8d\x1b7e\x1bcf", "abcdef"),
        ("a\x1b\x1b[31mb", "ab"),
        ("a\x1b[3\x1b[31mb", "ab"),
        ("a\x1b[31\x18b", "ab"),
        ("a\x1b[31\nb", "a\nb"),
        ("a\x1b[31中b", "a中b"),
        ("a\x1b]0;unterminated\nb", "a\nb"),
        ("overwrite\rx\x08y\x7fz\x00", "overwritexyz"),
        ("a\r\nb", "a\nb"),
        ("a\x1b", "a"),
        ("a\x85b\x84c", "abc"),
        ("if a\u202e} \u2066// b\u2069\u202c c", "if a} // b c"),
        ("a\x1b[3\u202eb", "ab"),
        ("a\x1b]52;c;\u202eeA==\x07b", "ab"),
        ("שלום\u200f، 👩\u200d👧 می\u200cخواهم", "שלום\u200f، 👩\u200d👧 می\u200cخواهم"),
    ],
)
def test_sequences_go_and_text_stays(text: str, shown: str) -> None:
    assert strip(text) == shown


@given(st.lists(st.text(ALPHABET, max_size=12), max_size=12))
def test_the_result_does_not_depend_on_the_chunks(chunks: list[str]) -> None:
    sanitizer = Sanitizer()
    text = "".join(chunks)
    assert "".join(map(sanitizer.push, chunks)) == strip(text)
    one_by_one = Sanitizer()
    assert "".join(map(one_by_one.push, text)) == strip(text)


@given(st.text() | st.text(ALPHABET))
def test_no_control_character_comes_out(text: str) -> None:
    assert re.fullmatch(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]*", strip(text))


@given(st.text(st.characters(exclude_categories=("Cc",), exclude_characters=BIDIRECTIONAL)))
def test_text_without_controls_is_unchanged(text: str) -> None:
    assert strip(text) == text


@given(st.text(ALPHABET))
def test_what_comes_out_is_text_already(text: str) -> None:
    assert strip(strip(text)) == strip(text)


@pytest.mark.parametrize("opening", ["\x1b]0;", "\x1bP", "\x1b[", "\x9d", "\x1b "])
def test_an_endless_sequence_is_given_up_and_nothing_of_it_is_kept(opening: str) -> None:
    sanitizer = Sanitizer()
    sanitizer.push(opening)
    for _ in range(MAX_SWALLOWED // 8 + 1):
        sanitizer.push("11111111")
    assert sanitizer.push("shown") == "shown"
    assert all(not isinstance(value, (str, bytes, list)) for value in vars(sanitizer).values())


@given(st.binary(), st.lists(st.integers(0, 200)))
def test_bytes_of_any_kind_are_harmless_in_any_encoding(data: bytes, cuts: list[int]) -> None:
    for encoding in ("latin-1", "utf-8", "utf-16"):
        text = data.decode(encoding, errors="replace")
        ends = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
        sanitizer = Sanitizer()
        pieces = [sanitizer.push(text[start:end]) for start, end in itertools.pairwise(ends)]
        assert "".join(pieces) == strip(text)
        assert re.fullmatch(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f]*", strip(text))
