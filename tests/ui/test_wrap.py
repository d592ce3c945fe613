"""Lines break between words as they stream in, and nothing of the text is lost."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from llmcli.ui.wrap import WordWrap


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
