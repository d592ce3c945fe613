"""A terminal emulator with scrollback (pyte), made stricter where pyte is simpler than terminals are.

pyte knows no resize that wraps lines anew; here it is done as tmux and most terminals do it: lines that the terminal
broke are joined and broken again, the cursor stays at its text, and a lower window loses lines below the cursor
first. As in tmux, erasing the whole window moves it into the scrollback.
Characters without a width are left out, as pyte puts them into wrong cells.
"""

import io
import os
from collections.abc import Iterable, Iterator
from typing import Any

import pyte
from pyte.modes import DECAWM
from wcwidth import wcwidth


class _Screen(pyte.HistoryScreen):
    """Marks the rows that the terminal itself broke."""

    def draw(self, data: str) -> None:
        for char in data:
            width = wcwidth(char)
            if width <= 0:
                continue
            if self.cursor.x + width > self.columns:
                if DECAWM not in self.mode:
                    continue
                self.buffer[self.cursor.y].wrapped = True
                self.carriage_return()
                self.linefeed()
            if self.cursor.x == 0:
                self.buffer[self.cursor.y].wrapped = False
            super().draw(char)

    def erase_in_display(self, how: int = 0, *args: Any, **more: Any) -> None:
        if (self.cursor.x, self.cursor.y, how) == (0, 0, 0):
            self._scroll_all_away()
        for y in range(self.cursor.y, self.lines):
            self.buffer[y].wrapped = False
        super().erase_in_display(how, *args, **more)

    def _scroll_all_away(self) -> None:
        """As tmux does when the whole window is erased."""
        last = max([y for y in range(self.lines) if _text(self.buffer[y]).strip()], default=-1)
        self.history.top.extend(self.buffer[y] for y in range(last + 1))
        self.buffer.clear()


class TerminalScreen(io.StringIO):
    """Write to it as to a terminal, and read what a user would see."""

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__()
        self._screen = _Screen(columns, lines, history=100_000)
        self._stream = pyte.Stream(self._screen)

    def write(self, text: str) -> int:
        self._stream.feed(text.replace("\n", "\r\n"))  # as the terminal driver does
        return len(text)

    def size(self) -> os.terminal_size:
        return os.terminal_size((self._screen.columns, self._screen.lines))

    @property
    def cursor(self) -> tuple[int, int]:
        """Column and row."""
        return self._screen.cursor.x, self._screen.cursor.y

    @property
    def cursor_hidden(self) -> bool:
        return bool(self._screen.cursor.hidden)

    def rows(self) -> list[str]:
        """Scrollback and window, without spaces at the ends of rows and blank rows at the end."""
        rows = [_text(row).rstrip() for row in self._rows()]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def lines(self) -> list[str]:
        """The same, rows that the terminal broke put together."""
        return ["".join(map(_text, rows)).rstrip() for rows in _joined(self._rows())]

    def resize(self, columns: int, lines: int) -> None:
        """Give the window another size: first the height, then the width."""
        rows, screen = self._rows(), self._screen
        top, cursor = len(screen.history.top), len(screen.history.top) + screen.cursor.y
        fewer = screen.lines - lines
        if fewer > 0:
            below = min(fewer, screen.lines - 1 - screen.cursor.y)
            del rows[len(rows) - below :]
            top += fewer - below
        else:
            top = max(0, top + fewer)
        if columns != screen.columns:
            rows, cursor = _reflowed(rows, cursor, columns)
            top = max(0, len(rows) - lines)
        assert cursor >= top, "the cursor's line has left the window"
        self._replace(rows, top, cursor, columns, lines)

    def _rows(self) -> list[Any]:
        return [*self._screen.history.top, *(self._screen.buffer[y] for y in range(self._screen.lines))]

    def _replace(self, rows: list[Any], top: int, cursor: int, columns: int, lines: int) -> None:
        screen = self._screen
        screen.columns, screen.lines = columns, lines
        screen.history.top.clear()
        screen.history.top.extend(rows[:top])
        screen.buffer.clear()
        for y, row in enumerate(rows[top : top + lines]):
            screen.buffer[y] = row
        screen.cursor.y, screen.cursor.x = cursor - top, min(screen.cursor.x, columns - 1)


def _text(row: Any) -> str:
    return "".join(row[x].data for x in range(max(row, default=-1) + 1))


def _joined(rows: Iterable[Any]) -> Iterator[list[Any]]:
    line: list[Any] = []
    for row in rows:
        line.append(row)
        if not getattr(row, "wrapped", False):
            yield line
            line = []
    if line:
        yield line


def _reflowed(rows: list[Any], cursor: int, columns: int) -> tuple[list[Any], int]:
    """The rows of another width, and where the cursor's row is then; blank rows at the end go."""
    last = max([index for index, row in enumerate(rows) if _text(row).strip()], default=0)
    rows = rows[: max(last, cursor) + 1]
    new: list[Any] = []
    for line in _joined(rows):
        if any(row is rows[cursor] for row in line):
            cursor_row = len(new)
        new += _broken(line, columns)
    return new, cursor_row


def _broken(line: list[Any], columns: int) -> list[Any]:
    chars = [row[x] for row in line for x in range(max(row, default=-1) + 1)]
    while chars and not chars[-1].data.strip():
        chars.pop()
    rows, column = [_like(line[0])], 0
    for char in chars:
        width = wcwidth(char.data) if char.data else 0
        if column + width > columns:
            rows[-1].wrapped = True
            rows.append(_like(line[0]))
            column = 0
        if char.data:
            rows[-1][column] = char
            if width == 2:
                rows[-1][column + 1] = char._replace(data="")
            column += width
    return rows


def _like(row: Any) -> Any:
    fresh = type(row)(row.default)
    fresh.wrapped = False
    return fresh
