"""Break lines between words as text streams in, where a terminal would break them in the middle.

Owns the column; knows nothing of what the text means but that fenced code keeps its lines. Used by the view on a
terminal; pipes get the text as it is.
"""

from collections.abc import Callable

FENCE = "```"


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
            elif cell_len(char) > 1:  # wide scripts have no spaces: each character may start a line
                shown.append(self._flush())
                self._word = char
                shown.append(self._flush())
            else:
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
        self._word, self._spaces = "", 0
        cells, width = cell_len(word), max(1, self._width())
        if not self._in_code and self._column and self._column + len(spaces) + cells > width:
            spaces, lead, self._column = "", "\n", 0
        else:
            lead = ""
        self._column = (self._column + len(spaces) + cells - 1) % width + 1
        return lead + spaces + word
