"""An answer as rendered Markdown that is only ever added to: a block is printed once, when nothing can change it.

Below the blocks the text that is still open stands as a plain dim tail. Owns neither the parsing nor the screen: it
leads text from `markdown/blocks.py` through `markdown/render.py` to a `LiveRegion`. Made by `cli/chat.py`; it has the
methods of `PlainView`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmcli.text.sanitize import Sanitizer
from llmcli.ui.live_region import LiveRegion
from llmcli.ui.markdown.blocks import BlockSplitter, Piece, PieceKind
from llmcli.ui.markdown.highlight import Highlighter
from llmcli.ui.markdown.render import BlockRenderer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


class MarkdownView:
    """Shows one answer; ends with exactly one newline.

    Args:
        console: tells which styles the terminal knows.
        region: where it is shown.
    """

    def __init__(self, console: "Console", region: LiveRegion) -> None:
        self._console = console
        self._region = region
        self._sanitizer = Sanitizer()
        self._splitter = BlockSplitter()
        self._renderer = BlockRenderer()
        self._highlighter = Highlighter("")
        self._done = ""  # rendered lines that are not printed yet
        self._started = False
        self._gap = False  # blank lines before something that has no lines of its own

    def push(self, text: str) -> None:
        """Show the next piece of the answer."""
        self._take(self._splitter.push(self._sanitizer.push(text)))
        if self._region.due:
            tail = self._splitter.open_text
            self._draw(tail if self._started else tail.lstrip("\n"))

    def close(self) -> None:
        """Render what is open and end the answer."""
        self._take(self._splitter.close())
        if not self._started:
            self._done = "\n"
        self._draw("")
        self._region.close()

    def _take(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            lines = self._lines(piece)
            gap, self._gap = piece.gap or self._gap, False
            if not lines:
                self._gap = gap
                continue
            self._done += "\n" * (gap and self._started) + self._ansi(lines)
            self._started = True

    def _lines(self, piece: Piece) -> "list[Text]":
        from rich.text import Text

        if piece.kind is PieceKind.BLOCK:
            return self._renderer.render(piece.text, self._region.width, piece.number)
        if piece.kind is PieceKind.CODE:
            return [self._highlighter.line(piece.text)]
        if piece.kind is PieceKind.FENCE_OPEN:
            self._highlighter = Highlighter(piece.text.lstrip("`~"))
        return [Text.assemble((piece.text, "dim"))]

    def _draw(self, tail: str) -> None:
        self._region.draw(self._done, tail)
        self._done = ""

    def _ansi(self, lines: "list[Text]") -> str:
        """The lines as the terminal is to get them; tabs, which Rich would expand, stay."""
        from rich.segment import Segment, Segments

        segments = [segment for line in lines for segment in (*line.render(self._console), Segment.line())]
        with self._console.capture() as captured:
            self._console.print(Segments(segments), soft_wrap=True, end="")
        return captured.get()
