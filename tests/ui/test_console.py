"""The consoles: colour only on a terminal, foreign text as it is, and no exit of their own."""

import io
import sys

import pytest
from rich.table import Table

from llmcli.ui.console import stderr_console, stdout_console


class ClosedPipe(io.StringIO):
    """A file whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_pipe_gets_plain_text_with_its_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    stdout_console().print("[bold]x[/bold] :smile: 12", style="red")
    stderr_console().print("[oops")
    assert capsys.readouterr() == ("[bold]x[/bold] :smile: 12\n", "[oops\n")


def test_force_color_colours_and_no_color_does_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    stdout_console().print("x", style="red")
    assert capsys.readouterr().out == "\x1b[31mx\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    stdout_console().print("x", style="red")
    assert "31" not in capsys.readouterr().out


def test_forced_colour_makes_no_terminal_of_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = stderr_console()
    assert not console.is_terminal
    with console.status("waiting"):
        pass
    assert "\x1b" not in capsys.readouterr().err


def test_columns_sets_the_width_of_what_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stderr_console().print("word " * 8)
    assert max(map(len, capsys.readouterr().err.splitlines())) <= 20


def test_a_reader_that_has_gone_is_the_callers_to_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    with pytest.raises(BrokenPipeError):
        stdout_console().print("x")


def test_a_table_in_a_pipe_is_not_cut_to_a_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    table = Table("a" * 30, "b" * 30, box=None)
    stdout_console().print(table)
    assert capsys.readouterr().out.split() == ["a" * 30, "b" * 30]
