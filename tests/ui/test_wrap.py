"""Lines break between words as they stream in, and nothing of the text is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from llmcli.ui.wrap import WordWrap, _clusters, text_cells, wrap_lines, wrap_text


def wrapped(pieces: list[str], width: int) -> str:
    wrap = WordWrap(lambda: width)
    return "".join(map(wrap.push, pieces)) + wrap.close()


def test_a_word_that_does_not_fit_starts_the_next_line() -> None:
    assert wrapped(["the quick br", "own fox"], 12) == "the quick\nbrown fox"


def test_a_word_that_fits_exactly_stays() -> None:
    assert wrapped(["ab cd", " efg"], 5) == "ab cd\nefg"


def test_a_word_longer_than_the_line_is_left_to_the_terminal() -> None:
    assert wrapped(["abcdefghij kl"], 4) == "abcdefghij\nkl"


def test_newlines_and_indentation_of_the_text_are_kept() -> None:
    assert wrapped(["- one\n", "  two  three"], 20) == "- one\n  two  three"


def test_fenced_code_keeps_its_lines() -> None:
    text = "```\nlong line of code\n```\nlong line of text"
    assert wrapped([text], 10) == "```\nlong line of code\n```\nlong line\nof text"


def test_wide_characters_count_twice_and_may_stand_alone() -> None:
    assert wrapped(["猫が好き"], 5) == "猫が\n好き"


def test_a_resize_counts_from_the_next_word_on() -> None:
    widths = iter([20, 20, 5, 5])
    wrap = WordWrap(lambda: next(widths))
    assert wrap.push("one two ") + wrap.push("three ") + wrap.close() == "one two\nthree"


@given(st.lists(st.text(alphabet="ab cd\n猫", max_size=12)), st.integers(2, 30))
def test_any_chunking_gives_the_same_lines_and_all_of_the_text(pieces: list[str], width: int) -> None:
    text = "".join(pieces)
    lines = wrapped(pieces, width)
    assert lines == wrapped([text], width)
    assert lines.replace(" ", "").replace("\n", "") == text.replace(" ", "").replace("\n", "")


@given(st.lists(st.text(alphabet="abc", min_size=1, max_size=8), min_size=1))
def test_no_line_of_short_words_is_wider_than_the_terminal(words: list[str]) -> None:
    assert all(cell_len(line) <= 10 for line in wrapped([" ".join(words)], 10).split("\n"))


@pytest.mark.parametrize("cluster", ["👩\u200d👩\u200d👧", "猫\u0301", "❤\ufe0f", "e\u0301"])
def test_what_is_drawn_as_one_character_stays_together(cluster: str) -> None:
    for width in range(4, 20):
        assert wrapped(list(cluster * 9), width).replace("\n", "") == cluster * 9
        assert all(
            line in cluster * 9 and line.startswith(cluster[0])
            for line in wrapped([cluster * 9], width).split()
        )
        assert all(line.startswith(cluster[0]) for line in wrap_lines(cluster * 9, width))


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("one two three", 7, ["one two", "three"]),
        ("one  two", 5, ["one", "two"]),
        ("abcdefghij k", 4, ["abcd", "efgh", "ij k"]),
        ("  indented text", 10, ["  indented", "text"]),
        ("猫が好き です", 5, ["猫が", "好き", "です"]),
        ("ab猫cd", 3, ["ab", "猫", "cd"]),
        ("a\tb", 12, ["a       b"]),
        ("one\n\ntwo\n", 9, ["one", "", "two", ""]),
        ("", 9, [""]),
        ("a   ", 9, ["a"]),
        ("猫", 1, ["猫"]),
    ],
)
def test_a_whole_text_is_wrapped(text: str, width: int, lines: list[str]) -> None:
    assert wrap_lines(text, width) == lines


@given(st.text(st.sampled_from("ab 猫😀\u200d\ufe0f\u0301❤\n-")), st.integers(2, 30))
def test_lines_of_a_text_fit_and_nothing_is_lost(text: str, width: int) -> None:
    lines = wrap_lines(text, width)
    widest = max((cells for line in lines for _, cells in _clusters(line)), default=0)
    assert all(text_cells(line) <= max(width, widest) for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "").replace("\n", "")


@given(st.text(st.sampled_from("ab 猫\n")), st.integers(2, 30))
def test_styled_text_is_wrapped_at_the_same_places(text: str, width: int) -> None:
    styled = Text(text)
    styled.stylize("bold", 1, 9)
    assert [line.plain for line in wrap_text(styled, width)] == wrap_lines(text, width)
