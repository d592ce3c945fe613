"""Reasoning is dim while it runs, and then one line; in a pipe it stands between tags."""

import io

import pytest

from llmcli.ui.live_region import LiveRegion
from llmcli.ui.thinking import TaggedThinking, ThinkingMode, ThinkingView, thought_line
from llmcli.ui.view import AnswerView, PlainView
from tests.ui.terminal_screen import TerminalScreen


def view_on(screen: TerminalScreen, mode: ThinkingMode) -> AnswerView:
    region = LiveRegion(screen, size=screen.size, clock=iter(range(1000)).__next__)
    clock = iter([0.0, 12.3]).__next__
    return AnswerView(PlainView(screen), ThinkingView(region, mode, clock=clock))


@pytest.mark.parametrize(
    ("mode", "meanwhile", "after"),
    [
        ("fold", ["let me", "see"], ["thought for 12 s, 431 tokens", "", "42"]),
        ("hide", ["thinking, 431 tokens …"], ["thought for 12 s, 431 tokens", "", "42"]),
        ("show", ["let me", "see"], ["let me", "see", "", "thought for 12 s, 431 tokens", "", "42"]),
    ],
)
def test_each_mode_shows_it_in_its_way(mode: ThinkingMode, meanwhile: list[str], after: list[str]) -> None:
    screen = TerminalScreen(40, 10)
    view = view_on(screen, mode)
    view.think("let me\n", 400)
    view.think("see", 31)
    assert screen.rows() == meanwhile
    view.push("4")
    view.push("2")
    view.close()
    assert screen.rows() == after
    assert not screen.cursor_hidden


def test_reasoning_that_is_stopped_is_folded_too() -> None:
    screen = TerminalScreen(40, 10)
    view = view_on(screen, "fold")
    view.think("hm", 431)
    view.close()
    assert screen.rows() == ["thought for 12 s, 431 tokens"]


def test_reasoning_that_is_cut_says_so() -> None:
    screen = TerminalScreen(40, 10)
    view = view_on(screen, "fold")
    view.think("hm", 431)
    view.think("", 0, cut=True)
    view.push("42")
    view.close()
    assert screen.rows() == ["thought for 12 s (cut at 431 tokens)", "", "42"]


def test_empty_reasoning_leaves_nothing() -> None:
    screen = TerminalScreen(40, 10)
    view = view_on(screen, "hide")
    view.think("\n", 2)
    view.push("42")
    view.close()
    assert screen.rows() == ["42"]


def test_an_answer_without_reasoning_has_no_line_for_it() -> None:
    screen = TerminalScreen(40, 10)
    view = view_on(screen, "fold")
    view.push("42")
    view.close()
    assert screen.rows() == ["42"]


def test_long_reasoning_stays_whole_where_it_is_shown() -> None:
    screen = TerminalScreen(20, 6)
    view = view_on(screen, "show")
    text = "\n".join(f"thought {number}" for number in range(30))
    view.think(text, 431)
    view.close()
    assert screen.rows()[:30] == text.split("\n")


def test_no_control_sequence_of_it_reaches_the_terminal() -> None:
    screen = TerminalScreen(40, 10)
    view = view_on(screen, "show")
    view.think("a\x1b[2", 1)
    view.think("Jb\u202ec", 1)
    view.close()
    assert screen.rows()[0] == "abc"


def test_a_pipe_gets_it_between_tags() -> None:
    out = io.StringIO()
    view = AnswerView(PlainView(out), TaggedThinking(out))
    for piece in ("let me", " see"):
        view.think(piece, 1)
    view.push("42")
    view.close()
    assert out.getvalue() == "<think>\nlet me see\n</think>\n\n42\n"


@pytest.mark.parametrize("thinking", [None, TaggedThinking])
def test_a_pipe_gets_nothing_of_it_unless_asked_or_if_there_is_none(
    thinking: type[TaggedThinking] | None,
) -> None:
    out = io.StringIO()
    view = AnswerView(PlainView(out), thinking and thinking(out))
    if thinking is None:
        view.think("hm", 1)
    view.push("42")
    view.close()
    assert out.getvalue() == "42\n"


@pytest.mark.parametrize(
    ("seconds", "tokens", "line"),
    [
        (0.42, 1, "thought for 0.4 s, 1 token"),
        (12.4, 431, "thought for 12 s, 431 tokens"),
        (72, 2431, "thought for 1 min 12 s, 2 431 tokens"),
        (2.5, 0, "thought for 2.5 s"),
    ],
)
def test_one_line_tells_how_long_it_took(seconds: float, tokens: int, line: str) -> None:
    assert thought_line(seconds, tokens) == line
