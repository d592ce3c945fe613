"""What the standard streams are, and what that means for people."""

from dataclasses import replace

import pytest

from llmcli.jobs.doctor.terminal import TerminalFacts, check_terminal

ALL = ("stdin", "stdout", "stderr")
TERMINAL = TerminalFacts(
    on_terminal=ALL, columns=120, rows=40, encoding="utf-8", environment={"TERM": "xterm-256color"}
)


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({"TERM": "xterm-256color"}, "256 colours"),
        ({"TERM": "xterm"}, "16 colours"),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, "16 million colours"),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "no colours (NO_COLOR)"),
    ],
)
def test_a_terminal_passes_with_size_colours_and_encoding(environment: dict[str, str], colours: str) -> None:
    finding = check_terminal(replace(TERMINAL, environment=environment))
    assert (finding.status, finding.found) == ("pass", f"120 x 40, {colours}, utf-8")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"encoding": "ascii"}, "shown as codes"),
        ({"encoding": "ANSI_X3.4-1968"}, "shown as codes"),
        ({"encoding": "nonsense"}, "shown as codes"),
        ({"environment": {"TERM": "dumb"}}, "TERM is dumb"),
        ({"environment": {}}, "TERM is not set"),
        ({"columns": 30}, "hard to read"),
    ],
)
def test_a_terminal_that_can_do_less_is_a_warning(change: dict, found: str) -> None:
    finding = check_terminal(replace(TERMINAL, **change))
    assert finding.status == "warn"
    assert found in finding.found
    assert finding.fix


def test_without_a_terminal_neither_term_nor_width_matter() -> None:
    finding = check_terminal(replace(TERMINAL, on_terminal=(), environment={}, columns=10))
    assert (finding.status, finding.found) == ("pass", "no terminal, utf-8: plain text")


def test_streams_that_are_elsewhere_are_named() -> None:
    assert check_terminal(replace(TERMINAL, on_terminal=("stdout",))).found.endswith(
        "stdin, stderr: not a terminal"
    )
