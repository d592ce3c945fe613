"""Reads a chat's lines where there is no terminal to edit them on: pipes, files, dumb terminals.

Knows only streams. `prompt_reader.py` is its sibling for terminals.
"""

from typing import TextIO

from llmcli.ui.commands.table import BLOCK
from llmcli.ui.interrupt import DoublePress

PROMPT = ">>> "
CONTINUED = "... "
LEAVE_HINT = "(Ctrl-C again to leave, or /exit)"


class LineReader:
    """One line is one message; triple quotes open and close a message of several lines.

    Args:
        source: where the lines come from.
        screen: where the prompt is shown, if a person is at the other end of `source`.
    """

    def __init__(self, source: TextIO, screen: TextIO) -> None:
        self._source = source
        self._screen = screen
        self._asks = source.isatty()
        self._interrupts = DoublePress()

    def read(self, text: str = "") -> str:
        """The next message or command.

        Args:
            text: is to be edited; here it can only be shown.

        Raises:
            EOFError: the source has ended.
            KeyboardInterrupt: Ctrl-C twice within a second.
        """
        if text:
            self._show(f"{text}\n")
        while True:
            try:
                return self._read_message()
            except KeyboardInterrupt:
                if not self._asks or self._interrupts.press():
                    raise
                self._show(f"\n{LEAVE_HINT}\n")

    def _read_message(self) -> str:
        lines = [self._read_line(PROMPT)]
        if lines[0].strip().startswith(BLOCK):
            while not is_closed("\n".join(lines)):
                lines.append(self._read_line(CONTINUED))
        return "\n".join(lines)

    def _read_line(self, prompt: str) -> str:
        self._show(prompt)
        line = self._source.readline()
        if not line:
            self._show("\n")
            raise EOFError
        return line.rstrip("\r\n")

    def _show(self, text: str) -> None:
        if self._asks:
            self._screen.write(text)
            self._screen.flush()


def is_closed(text: str) -> bool:
    """Whether a message is complete: an opened block has its closing quotes."""
    stripped = text.strip()
    if not stripped.startswith(BLOCK):
        return True
    return len(stripped) >= 2 * len(BLOCK) and stripped.endswith(BLOCK)
