"""Markdown on an emulated terminal: whatever the pieces, the width and the resizes, each line is there once."""

import io
import itertools
import os
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from llmcli.ui.live_region import LiveRegion
from llmcli.ui.markdown.view import MarkdownView
from tests.ui.markdown_answers import answers, chunked, words
from tests.ui.terminal_screen import TerminalScreen

SEEDS = st.integers(0, 2**32)
SIZES = st.tuples(st.integers(20, 200), st.integers(4, 30))


def view_on(screen: TerminalScreen, *, colours: bool = True) -> MarkdownView:
    ticks = itertools.count()
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard" if colours else None)
    return MarkdownView(console, LiveRegion(screen, size=screen.size, clock=lambda: float(next(ticks))))


def show(screen: TerminalScreen, *pieces: str) -> None:
    view = view_on(screen)
    for piece in pieces:
        view.push(piece)
    view.close()


def shown(text: str, columns: int = 40, lines: int = 12) -> list[str]:
    screen = TerminalScreen(columns, lines)
    show(screen, text)
    return screen.rows()


@given(answers(), SEEDS, SIZES)
@settings(deadline=None, max_examples=40)
def test_how_an_answer_is_cut_into_pieces_does_not_matter(
    text: str, seed: int, size: tuple[int, int]
) -> None:
    in_pieces, at_once = TerminalScreen(*size), TerminalScreen(*size)
    show(in_pieces, *chunked(text, seed))
    show(at_once, text)
    assert in_pieces.rows() == at_once.rows()


@given(answers(), SEEDS, SIZES)
@settings(deadline=None, max_examples=40)
def test_every_word_is_on_the_screen_once_and_in_order(text: str, seed: int, size: tuple[int, int]) -> None:
    screen = TerminalScreen(*size)
    show(screen, *chunked(text, seed))
    assert words("\n".join(screen.lines())) == words(text)


@given(answers(), SEEDS, SIZES)
@settings(deadline=None, max_examples=40)
def test_the_same_holds_when_the_window_is_resized_in_between(
    text: str, seed: int, size: tuple[int, int]
) -> None:
    screen, rng = TerminalScreen(*size), random.Random(seed)
    view = view_on(screen)
    for piece in chunked(text, seed):
        if rng.random() < 0.3:
            columns, lines = screen.size()
            narrowest = max(20, (columns + 1) // 2)
            screen.resize(*rng.choice([(columns, rng.randint(4, 30)), (rng.randint(narrowest, 200), lines)]))
        view.push(piece)
    view.close()
    assert words("\n".join(screen.lines())) == words(text)


@given(answers(), SEEDS, SIZES)
@settings(deadline=None, max_examples=40)
def test_what_stood_on_the_screen_before_is_not_touched(text: str, seed: int, size: tuple[int, int]) -> None:
    screen = TerminalScreen(*size)
    before = [f"line {number}" for number in range(size[1] + 3)]
    screen.write("\n".join(before) + "\n")
    show(screen, *chunked(text, seed))
    assert screen.rows()[: len(before)] == before


@given(answers(), SEEDS)
@settings(deadline=None, max_examples=40)
def test_lines_that_are_printed_never_change(text: str, seed: int) -> None:
    class Recorder(LiveRegion):
        done = ""

        def draw(self, done: str, tail: str = "") -> None:
            self.done += done
            super().draw(done, tail)

    screen = TerminalScreen(60, 10)
    region = Recorder(screen, size=screen.size)
    view = MarkdownView(Console(file=io.StringIO(), no_color=True), region)
    for piece in chunked(text, seed):
        view.push(piece)
    view.close()
    plain = re.sub(r"\x1b\[[\d;]*m", "", region.done)
    expected = TerminalScreen(60, 10)
    expected.write(plain)
    assert screen.rows() == expected.rows()


def test_blocks_are_rendered_as_they_close_and_the_open_one_is_a_tail() -> None:
    screen = TerminalScreen(40, 12)
    view = view_on(screen)
    view.push("# Title\n\nSome **bold** text")
    assert screen.rows() == ["Title", "", "Some **bold** text"]
    view.push(" here.\n\n- one\n- two\n- t")
    assert screen.rows() == ["Title", "", "Some bold text here.", "", "• one", "- two", "- t"]
    view.close()
    assert screen.rows() == ["Title", "", "Some bold text here.", "", "• one", "• two", "• t"]


def test_lines_of_open_code_are_printed_as_they_end() -> None:
    screen = TerminalScreen(40, 12)
    view = view_on(screen)
    view.push("Look:\n```python\ndef f():\n    return 1\n    # and")
    assert screen.rows() == ["Look:", "```python", "def f():", "    return 1", "    # and"]
    assert screen.cursor == (0, 4)


def test_code_has_no_padding_no_box_and_no_spaces_at_the_ends_of_lines() -> None:
    out = io.StringIO()
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=40)
    view = MarkdownView(console, LiveRegion(out, live=False))
    code = "def f():\n\treturn 'tab, and a line that is much longer than the terminal is wide'\n\nf()\n"
    view.push(f"```python\n{code}```\n")
    view.close()
    plain = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())
    assert plain == f"```python\n{code}```\n"
    assert "\x1b[" in out.getvalue()


def test_a_long_line_of_code_is_left_to_the_terminal_so_that_it_copies_as_one() -> None:
    screen = TerminalScreen(20, 12)
    line = "x = " + " + ".join("abcdef"[:6] for _ in range(8))
    show(screen, f"```\n{line}\n```\n")
    assert line in screen.lines()


def test_a_tail_higher_than_the_window_shows_its_end() -> None:
    screen = TerminalScreen(20, 8)
    view = view_on(screen)
    text = " ".join(f"q{number}q" for number in range(100))
    view.push(text)
    assert len(screen.rows()) == 4
    assert screen.rows()[-1].endswith("q99q")
    view.close()
    assert words("\n".join(screen.lines())) == words(text)


def test_the_cursor_is_hidden_while_an_answer_is_written_only() -> None:
    screen = TerminalScreen(20, 8)
    view = view_on(screen)
    view.push("hello")
    assert screen.cursor_hidden
    view.close()
    assert not screen.cursor_hidden
    assert screen.cursor == (0, 1)


@pytest.mark.parametrize("text", ["", "\n\n", "[ref]: http://example.org\n"])
def test_an_answer_without_any_text_is_one_empty_line(text: str) -> None:
    screen = TerminalScreen(20, 8)
    show(screen, text)
    assert (screen.rows(), screen.cursor) == ([], (0, 1))


def test_an_update_is_one_write() -> None:
    writes: list[str] = []

    class Out(io.StringIO):
        def write(self, text: str) -> int:
            writes.append(text)
            return len(text)

    ticks = itertools.count()
    region = LiveRegion(Out(), size=lambda: os.terminal_size((40, 10)), clock=lambda: float(next(ticks)))
    view = MarkdownView(Console(file=io.StringIO()), region)
    for piece in ("# Title\n", "\nSome ", "text.\n\n- a\n- b"):
        view.push(piece)
    assert len(writes) == 3
    assert all(text.startswith("\x1b[?2026h") and text.endswith("\x1b[?2026l") for text in writes)


@given(
    st.lists(
        st.sampled_from(
            [
                "\x1b[2J",
                "\x1b]52;c;eA==\x07",
                "\x9b",
                "31m",
                "&#13;",
                "&#27;",
                "&#x202e;",
                "a",
                "`",
                "\n",
                "[b](http://x.y/&#13;)",
                "\u202e",
                "\r",
                "\x1b]8;;http://z\x1b\\",
                "| ",
                "|-|",
            ]
        )
    )
)
def test_no_control_sequence_of_an_answer_reaches_the_terminal(pieces: list[str]) -> None:
    out = io.StringIO()
    view = MarkdownView(
        Console(file=io.StringIO(), force_terminal=True, color_system="standard"), LiveRegion(out)
    )
    for piece in pieces:
        view.push(piece)
    view.close()
    ours = re.sub(r"\x1b\[(\?(2026|25|7)[hl]|[\d;]*m|\d*[AJK])|\r\n|\r(?= ?\x1b)", "", out.getvalue())
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", ours)
    assert "52;c" not in ours


def test_rich_markup_is_text() -> None:
    assert shown("[red]not markup[/x] [link=http://x]y[/link]\n") == [
        "[red]not markup[/x]",
        "[link=http://x]y[/link]",
    ]


def test_without_a_live_terminal_only_what_is_closed_is_written() -> None:
    out = io.StringIO()
    view = MarkdownView(Console(file=io.StringIO()), LiveRegion(out, live=False))
    view.push("**bold**, and ")
    assert out.getvalue() == ""
    view.push("more\n\n| a | b |\n|---|---|\n| 1 | 2 |")
    view.close()
    assert out.getvalue() == "bold, and more\n\na  b\n─  ─\n1  2\n"
