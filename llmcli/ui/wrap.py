"""Break lines between words where a terminal would break them in the middle: of a stream, and of a whole text.

Owns how wide a text is thought to be; knows nothing of what it means but that fenced code keeps its lines. Used by
the views on a terminal; pipes get the text as it is.
"""

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

FENCE = "```"
TAB = 8
MIN_WIDTH = 8
"""What is laid out is never narrower; a terminal that is breaks the lines itself."""

_JOINER, _EMOJI_STYLE = "\u200d", "\ufe0f"
_RUNS = re.compile(r"[ \t]+|[^ \t]+")


class WordWrap:
    """Wraps one answer.

    Args:
        width: the terminal's columns now; asked for every word, so that a resize counts at once.
    """

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._column = 0
        self._spaces = 0
        self._word = ""
        self._wide = (
            False  # the word is one wide character: such scripts have no spaces, each may start a line
        )
        self._line_start = ""
        self._in_code = False

    def push(self, text: str) -> str:
        """The text that can be shown now: a word is held until it ends."""
        from rich.cells import cell_len

        shown = []
        for char in text:
            if char == "\n":
                shown.append(self._flush() + " " * self._spaces + "\n")
                self._in_code ^= self._line_start.startswith(FENCE)
                self._column = self._spaces = 0
                self._line_start = ""
                continue
            if len(self._line_start) < len(FENCE):
                self._line_start += char
            if char == " ":
                shown.append(self._flush())
                self._spaces += 1
                continue
            cells = cell_len(char)
            joined = cells == 0 or self._word.endswith(_JOINER)
            if self._word and not joined and (self._wide or cells > 1):
                shown.append(self._flush())
            self._wide = cells > 1 or (self._wide and joined)
            self._word += char
        return "".join(shown)

    def close(self) -> str:
        """The word that was held."""
        return self._flush()

    def _flush(self) -> str:
        from rich.cells import cell_len

        if not self._word:
            return ""
        word, spaces = self._word, " " * self._spaces
        self._word, self._spaces, self._wide = "", 0, False
        cells, width = cell_len(word), max(1, self._width())
        if not self._in_code and self._column and self._column + len(spaces) + cells > width:
            spaces, lead, self._column = "", "\n", 0
        else:
            lead = ""
        self._column = (self._column + len(spaces) + cells - 1) % width + 1
        return lead + spaces + word


def wrap_lines(text: str, width: int) -> list[str]:
    """The lines of a text, none wider than `width` cells, without spaces at their ends."""
    lines = []
    for line in text.expandtabs(TAB).split("\n"):
        ends = [0, *break_offsets(line, width), len(line)]
        lines += [line[start:end].rstrip() for start, end in pairwise(ends)]
    return lines


def wrap_text(text: "Text", width: int) -> "list[Text]":
    """The same for styled text."""
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        line.expand_tabs(TAB)
        parts = line.divide(break_offsets(line.plain, width))
        for part in parts:
            part.rstrip()
        lines += parts
    return lines


def break_offsets(line: str, width: int) -> list[int]:
    """Where to break a line without tabs so that no part is wider than `width` cells, spaces at its end not counted.

    Between words, or beside a wide character; inside a word only when it is wider than a whole line.
    """
    offsets: list[int] = []
    column, blank = 0, True
    for run in _RUNS.finditer(line):
        if run.group()[0] == " ":
            column += run.end() - run.start()
            continue
        for start, end, cells in _words(line, run.start(), run.end()):
            if not blank and column + cells > width:
                offsets.append(start)
                column = 0
            blank = False
            if column + cells <= width:
                column += cells
                continue
            for offset, size in _clusters(line[start:end]):
                if column and column + size > width:
                    offsets.append(start + offset)
                    column = 0
                column += size
    return offsets


def text_cells(text: str) -> int:
    """The cells that a terminal may need for a text at most.

    Terminals differ: some draw a joined emoji in two cells, others draw each of its parts. The larger one counts.
    """
    return len(text) if text.isascii() else sum(cells for _, cells in _clusters(text))


def _words(line: str, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, cells) of what is not to be broken: words, and each wide character."""
    if line[start:end].isascii():
        yield start, end, end - start
        return
    first, total = start, 0
    clusters = [*_clusters(line[start:end]), (end - start, 0)]
    for (offset, cells), (after, _) in pairwise(clusters):
        if cells < 2:
            total += cells
            continue
        if first < start + offset:
            yield first, start + offset, total
        yield start + offset, start + after, cells
        first, total = start + after, 0
    if first < end:
        yield first, end, total


def _clusters(text: str) -> list[tuple[int, int]]:
    """(offset, cells) of what is drawn as one: a character with its combining marks, and joined emoji."""
    from rich.cells import cell_len

    if text.isascii():
        return [(offset, 1) for offset in range(len(text))]
    found: list[tuple[int, int]] = []
    joined = False
    for index, char in enumerate(text):
        cells = cell_len(char)
        if found and (joined or cells == 0):
            offset, before = found[-1]
            widened = char == _EMOJI_STYLE and before == 1 and text[offset] != " "
            found[-1] = (offset, before + cells + widened)
        else:
            found.append((index, cells))
        joined = char == _JOINER
    return found
