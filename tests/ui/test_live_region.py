"""The tail below an answer: drawn in place, never left behind."""

import os

import pytest

from llmcli.ui.live_region import REDRAW_S, LiveRegion
from tests.ui.terminal_screen import TerminalScreen


def test_a_tail_is_replaced_and_lines_that_are_done_stay() -> None:
    screen = TerminalScreen(20, 10)
    region = LiveRegion(screen, size=screen.size)
    region.draw("", "one\ntwo\nthree")
    region.draw("done\n", "four")
    assert screen.rows() == ["done", "four"]
    region.close()
    assert screen.rows() == ["done"]


def test_the_cursor_waits_at_the_begin_of_the_tail() -> None:
    screen = TerminalScreen(20, 10)
    region = LiveRegion(screen, size=screen.size)
    region.draw("done\n", "one\ntwo")
    assert screen.cursor == (0, 1)


def test_at_the_bottom_of_the_window_the_tail_scrolls_what_is_above() -> None:
    screen = TerminalScreen(20, 6)
    screen.write("".join(f"line {number}\n" for number in range(5)))
    region = LiveRegion(screen, size=screen.size)
    for tail in ("a", "a\nb\nc", "a\nb", ""):
        region.draw("", tail)
    assert screen.rows() == [f"line {number}" for number in range(5)]


def test_of_a_high_tail_the_end_is_shown_in_half_of_the_window() -> None:
    screen = TerminalScreen(20, 6)
    LiveRegion(screen, size=screen.size).draw("", "\n".join("abcdefgh"))
    assert screen.rows() == ["f", "g", "h"]


@pytest.mark.parametrize("tail", ["猫" * 30, "👩‍👩‍👧" * 12, "x" * 60, "e\u0301" * 50, "a\tb\tc\td"])
def test_rows_of_the_tail_never_break(tail: str) -> None:
    screen = TerminalScreen(20, 10)
    region = LiveRegion(screen, size=screen.size)
    region.draw("done\n", tail)
    assert screen.lines()[: len(screen.rows())] == screen.rows()
    region.close()
    assert screen.rows() == ["done"]


@pytest.mark.parametrize("size", [(10, 10), (40, 10), (20, 6), (20, 20)])
def test_after_a_resize_the_tail_is_erased_whole_and_drawn_by_the_new_width(size: tuple[int, int]) -> None:
    screen = TerminalScreen(20, 10)
    region = LiveRegion(screen, size=screen.size)
    tail = "one two three four five six seven eight"
    region.draw("done\n", tail)
    screen.resize(*size)
    region.draw("more\n", tail)
    assert " ".join(screen.rows()) == "done more " + tail
    assert all(len(row) < size[0] for row in screen.rows())


def test_it_is_due_again_after_a_twentieth_of_a_second() -> None:
    now = [0.0]
    region = LiveRegion(TerminalScreen(20, 5), clock=lambda: now[0])
    assert region.due
    region.draw("", "a")
    assert not region.due
    now[0] = REDRAW_S
    assert region.due


def test_nothing_is_written_when_nothing_changed() -> None:
    screen = TerminalScreen(20, 5)
    region = LiveRegion(screen, size=screen.size)
    region.draw("", "a")
    screen.write("by another")
    region.draw("", "a")
    assert screen.rows() == ["by another"]


def test_without_a_live_terminal_there_is_no_tail_and_no_control_sequence() -> None:
    screen = TerminalScreen(20, 5)
    region = LiveRegion(screen, live=False)
    region.draw("one\n", "tail")
    region.close()
    assert screen.rows() == ["one"]
    assert not screen.cursor_hidden


def test_the_width_is_that_of_now_and_never_less_than_eight() -> None:
    sizes = iter([os.terminal_size((80, 24)), os.terminal_size((3, 24))])
    region = LiveRegion(TerminalScreen(20, 5), size=lambda: next(sizes))
    assert (region.width, region.width) == (80, 8)


def test_a_very_long_tail_is_cut_before_it_is_wrapped() -> None:
    screen = TerminalScreen(20, 6)
    LiveRegion(screen, size=screen.size).draw("", "x" * 10**6 + " end")
    assert screen.rows()[-1].endswith("end")


@pytest.mark.parametrize("tail", ["one two three " * 200, "猫" * 2000])
def test_a_window_that_is_made_much_narrower_still_holds_the_tail(tail: str) -> None:
    screen = TerminalScreen(200, 10)
    region = LiveRegion(screen, size=screen.size)
    region.draw("done\n", tail)
    screen.resize(40, 10)
    region.draw("more\n", "end")
    assert screen.rows() == ["done", "more", "end"]


def test_short_lines_fill_half_of_a_wide_window() -> None:
    screen = TerminalScreen(200, 10)
    LiveRegion(screen, size=screen.size).draw("", "\n".join("abcdefgh"))
    assert screen.rows() == ["d", "e", "f", "g", "h"]
