"""Lines from a pipe or a dumb terminal."""

import io

import pytest

from llmcli.ui.line_reader import LineReader, is_closed


class Terminal(io.StringIO):
    """Text that a person typed; an entry that is an exception is raised instead."""

    def __init__(self, *lines: str | BaseException) -> None:
        super().__init__()
        self._typed = list(lines)

    def isatty(self) -> bool:
        return True

    def readline(self, size: int = -1) -> str:
        line = self._typed.pop(0) if self._typed else ""
        if isinstance(line, BaseException):
            raise line
        return line


def test_each_line_of_a_pipe_is_a_message_and_nothing_is_printed() -> None:
    screen = io.StringIO()
    reader = LineReader(io.StringIO("hi\r\nsecond\n\nlast"), screen)
    assert [reader.read() for _ in range(4)] == ["hi", "second", "", "last"]
    with pytest.raises(EOFError):
        reader.read()
    assert screen.getvalue() == ""


def test_triple_quotes_hold_several_lines_together() -> None:
    reader = LineReader(io.StringIO('"""one\ntwo\n"""\nthree\n'), io.StringIO())
    assert reader.read() == '"""one\ntwo\n"""'
    assert reader.read() == "three"


def test_a_person_sees_a_prompt() -> None:
    screen = io.StringIO()
    assert LineReader(Terminal('"""\n', "a\n", '"""\n'), screen).read() == '"""\na\n"""'
    assert screen.getvalue() == ">>> ... ... "


def test_ctrl_c_hints_once_and_leaves_when_pressed_again() -> None:
    screen = io.StringIO()
    reader = LineReader(Terminal(KeyboardInterrupt(), "hi\n"), screen)
    assert reader.read() == "hi"
    assert "Ctrl-C again" in screen.getvalue()
    reader = LineReader(Terminal(KeyboardInterrupt(), KeyboardInterrupt()), screen)
    with pytest.raises(KeyboardInterrupt):
        reader.read()


@pytest.mark.parametrize(
    ("text", "closed"),
    [("a", True), ('"""', False), ('"""a', False), ('"""a"""', True), ('"""""', False), ('""""""', True)],
)
def test_a_block_is_closed_by_its_own_quotes(text: str, closed: bool) -> None:
    assert is_closed(text) is closed
