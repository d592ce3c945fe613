"""The end of an answer on a terminal: lines that are done and stay, and below them a tail that is drawn anew.

Owns the cursor while an answer is written. Between two updates the cursor stands at the first cell of the tail: that
place is the same line of text whatever a resize does to the lines, so the tail is always erased whole, and never more.
Each update is one write. Knows nothing of what the text means. Used by the Markdown view and the thinking view.
"""

import math
import os
import shutil
import time
from collections.abc import Callable
from typing import TextIO

from llmcli.ui.wrap import MIN_WIDTH, text_cells, wrap_lines

REDRAW_S = 0.05
_TAIL_CHARS = 16384  # a longer tail is cut before it is wrapped, at steps, so that its lines do not dance
_TAIL_STEP = 4096
_NARROW = 40

_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # synchronized output; terminals that lack it ignore it
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"
_ERASE_LINE, _ERASE_BELOW = "\x1b[K", "\x1b[J"
# From the second column on, then the first: erased from the first cell of the window on, tmux would keep what was.
_ERASE_ALL_BELOW = f" {_ERASE_BELOW}\r{_ERASE_LINE}"
_DIM, _NORMAL = "\x1b[2m", "\x1b[0m"


class LiveRegion:
    """Prints lines that are done, above a tail of plain dim text.

    Args:
        out: the terminal; anything else if not `live`.
        live: False prints what is done and nothing else, for pipes and for terminals without cursor movements.
        size: the terminal's size now; asked at every update.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        out: TextIO,
        *,
        live: bool = True,
        size: Callable[[], os.terminal_size] = shutil.get_terminal_size,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = out
        self._live = live
        self._size = size
        self._clock = clock
        self._drawn_at: float | None = None
        self._drawn: tuple[list[str], os.terminal_size] | None = None  # the tail on the screen
        self._cursor_hidden = False

    @property
    def width(self) -> int:
        """The columns that lines may take."""
        return max(MIN_WIDTH, self._size().columns)

    @property
    def due(self) -> bool:
        """Whether enough time has passed to draw again."""
        return self._drawn_at is None or self._clock() - self._drawn_at >= REDRAW_S

    def draw(self, done: str, tail: str = "") -> None:
        """Print lines that stay, and replace the tail.

        Args:
            done: whole lines, each with its newline; may hold styles.
            tail: plain text without control characters but newline and tab; of a long one the end is shown.
        """
        self._drawn_at = self._clock()
        if not self._live:
            self._write(done)
            return
        size = self._size()
        rows = _last_rows(tail, size) if tail.strip() else []
        shown = (rows, size) if rows else None
        if done or shown != self._drawn:
            self._write(self._update(done, rows))
            self._drawn = shown

    def close(self) -> None:
        """Erase the tail and show the cursor again; more may be drawn later."""
        if self._drawn is not None:
            self.draw("")
        if self._cursor_hidden:
            self._cursor_hidden = False
            self._write(_SHOW_CURSOR)

    def _update(self, done: str, rows: list[str]) -> str:
        parts = [_BEGIN, "\r"]
        if not self._cursor_hidden:
            self._cursor_hidden = True
            parts.append(_HIDE_CURSOR)
        if done:
            parts += [_ERASE_ALL_BELOW, done.replace("\n", "\r\n")]
        # Rows are written over, not erased first: nothing is blank for a moment. Without wrapping each of them takes
        # one line, even if the terminal thinks that it is wider than we do.
        lines = "\r\n".join(f"{_DIM}{row}{_NORMAL}{_ERASE_LINE}" for row in rows)
        parts += [_WRAP_OFF, lines, _ERASE_BELOW if rows else _ERASE_ALL_BELOW, _WRAP_ON, "\r"]
        if len(rows) > 1:
            parts.append(f"\x1b[{len(rows) - 1}A")
        return "".join([*parts, _END])

    def _write(self, text: str) -> None:
        if text:
            self._out.write(text)
            self._out.flush()


def _last_rows(tail: str, size: os.terminal_size) -> list[str]:
    """The end of a tail, at most half as high as the window.

    A window that is made narrower breaks its lines: half, and no more than a window of 40 columns and the same height
    would hold, so that the tail still fits then; what leaves the window at its top could not be erased. One column is
    left free: a cursor behind the last one is treated differently by each terminal.
    """
    excess = len(tail) - _TAIL_CHARS
    if excess > 0:
        tail = tail[(excess // _TAIL_STEP + 1) * _TAIL_STEP :]
    rows = wrap_lines(tail.rstrip(), max(1, size.columns - 1))[-max(1, size.lines // 2) :]
    heights = [max(1, math.ceil(text_cells(row) / _NARROW)) for row in rows]
    while len(rows) > 1 and sum(heights) > size.lines:
        del rows[0], heights[0]
    return rows
