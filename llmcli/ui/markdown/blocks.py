"""Cuts a stream of Markdown into blocks that no later text can change.

Owns the text that is still open. Decisions are made line by line, never within one, so how the stream is cut into
pieces does not matter. Knows nothing of looks. Called by the Markdown view.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from llmcli.ui.markdown.parser import MATH_CLOSED, block_parser

if TYPE_CHECKING:
    from markdown_it.token import Token

MAX_OPEN_LINES = 400
MAX_OPEN_CHARS = 32768
"""A block that grows beyond either is cut there: each line reads the open block again, and nobody sees its begin."""

_ENDED_BY_ITSELF = ("heading_open", "hr")
_ENDED_BY_BLANK_LINE = ("paragraph_open", "table_open", "blockquote_open", "math_block")
_FENCE = re.compile(r"( {0,3})(`{3,}|~{3,})(.*)")


class PieceKind(Enum):
    """What a piece of an answer is."""

    BLOCK = auto()  # Markdown to be rendered
    FENCE_OPEN = auto()
    CODE = auto()  # one line, as it is
    FENCE_CLOSE = auto()


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is closed.

    Attributes:
        text: a block's lines; or one line of or around code.
        gap: blank lines stand before it.
        number: of the item of an ordered list that the block begins with, where its own marker does not tell.
    """

    kind: PieceKind
    text: str
    gap: bool = False
    number: int | None = None


@dataclass(frozen=True, slots=True)
class _Fence:
    indent: int
    marker: str


@dataclass(frozen=True, slots=True)
class _Unit:
    """A block at the top level, or one item of a list there.

    Attributes:
        number: of an item of an ordered list.
        goes_on: an item follows in the same list.
        closed: no line can be added to it.
    """

    kind: str
    start: int
    end: int
    number: int | None = None
    goes_on: bool = False
    closed: bool = False


class BlockSplitter:
    """Takes an answer as it comes and gives its blocks as they close."""

    def __init__(self) -> None:
        self._parser = block_parser()
        self._lines: list[str] = []  # of the open block
        self._partial = ""  # the line that has not ended
        self._fence: _Fence | None = None
        self._gap = False
        self._in_table = False  # the open block is a table: a line that begins with a bar is a row of it
        self._number: int | None = None  # of the next item, in an ordered list whose items before are closed

    @property
    def open_text(self) -> str:
        """What came and is not closed, after a newline if blank lines stand before it."""
        if self._fence is not None:
            return self._partial
        return "\n" * self._gap + "\n".join([*self._lines, self._partial])

    def push(self, text: str) -> list[Piece]:
        """The pieces that `text` closes."""
        *lines, self._partial = (self._partial + text).split("\n")
        return [piece for line in lines for piece in self._take(line)]

    def close(self) -> list[Piece]:
        """All the rest."""
        pieces = self._take(self._partial) if self._partial else []
        self._partial = ""
        return pieces + self._release(final=True)

    def _take(self, line: str) -> list[Piece]:
        if self._fence is not None:
            return [self._code(line, self._fence)]
        if not self._lines and _is_blank(line):
            self._gap = True
            return []
        self._lines.append(line)
        if self._in_table and line.startswith("|") and not self._too_large():
            return []
        return self._release(final=False)

    def _code(self, line: str, fence: _Fence) -> Piece:
        closing = _FENCE.fullmatch(line.rstrip(" \t"))
        if closing and not closing[3] and closing[2].startswith(fence.marker):
            self._fence = None
            return Piece(PieceKind.FENCE_CLOSE, line.strip())
        indent = len(line) - len(line.lstrip(" "))
        return Piece(PieceKind.CODE, line[min(indent, fence.indent) :])

    def _release(self, *, final: bool) -> list[Piece]:
        pieces: list[Piece] = []
        while self._lines:
            fence = _opening_fence(self._lines[0])
            if fence is not None:
                pieces += self._enter(fence)
                continue
            unit = self._closed_unit(final=final)
            if unit is None:
                break
            text = "\n".join(self._lines[: unit.end]).rstrip()
            number = unit.number if self._number is not None else None
            pieces.append(Piece(PieceKind.BLOCK, text, self._gap, number))
            self._number = unit.number + 1 if unit.number is not None and unit.goes_on else None
            self._drop(unit.end)
        return pieces

    def _enter(self, fence: _Fence) -> list[Piece]:
        """Begin code; the lines that follow its fence, if there are any yet, are taken again as code."""
        first, *rest = self._lines
        gap, self._gap, self._number = self._gap, False, None
        self._fence, self._lines = fence, []
        pieces = [Piece(PieceKind.FENCE_OPEN, first.strip(), gap)]
        for line in rest:
            pieces += self._take(line)
        return pieces

    def _drop(self, count: int) -> None:
        """Forget the first lines, and blank ones after them."""
        self._gap = _is_blank(self._lines[count - 1])
        while count < len(self._lines) and _is_blank(self._lines[count]):
            self._gap = True
            count += 1
        del self._lines[:count]

    def _closed_unit(self, *, final: bool) -> _Unit | None:
        """The first unit of the open lines, if nothing can change it."""
        units = _units(self._parser.parse("\n".join(self._lines), {}), self._number)
        self._in_table = len(units) == 1 and units[0].kind == "table_open"
        count = len(self._lines)
        first = units[0] if units else _Unit("definitions", 0, count)
        if first.start:  # definitions of links, which no later line joins
            return _until(_Unit("definitions", 0, 0), first.start)
        if len(units) > 1:
            return _until(first, units[1].start)
        if first.kind in _ENDED_BY_ITSELF or first.closed:
            return _until(first, first.end)
        by_blank_line = first.kind in _ENDED_BY_BLANK_LINE or first.kind == "definitions"
        if final or (by_blank_line and _is_blank(self._lines[-1])) or self._too_large():
            return _until(first, count)
        return None

    def _too_large(self) -> bool:
        return len(self._lines) > MAX_OPEN_LINES or sum(map(len, self._lines)) > MAX_OPEN_CHARS


def _until(unit: _Unit, end: int) -> _Unit:
    """The unit with all lines before `end`, blank ones after it included."""
    return _Unit(unit.kind, 0, end, unit.number, unit.goes_on)


def _units(tokens: "list[Token]", number: int | None) -> list[_Unit]:
    """The units of a parsed text; `number` is that of its first item, if known from before."""
    units: list[_Unit] = []
    for index, token in enumerate(tokens):
        if token.level or token.nesting < 0 or token.map is None:
            continue
        if token.type not in ("bullet_list_open", "ordered_list_open"):
            closed = token.type == "math_block" and token.info == MATH_CLOSED
            start, end = token.map
            units.append(_Unit(token.type, start, end, closed=closed))
            continue
        ordered = token.type == "ordered_list_open"
        first = number if number is not None and not units else int(token.attrs.get("start", 1))
        items = [item.map for item in _items(tokens, index) if item.map is not None]
        for position, (start, end) in enumerate(items):
            goes_on = position + 1 < len(items)
            units.append(_Unit("item", start, end, first + position if ordered else None, goes_on))
    return units


def _items(tokens: "list[Token]", index: int) -> "list[Token]":
    """The items of the list that opens at `index` of the tokens, at the top level."""
    items = []
    for token in tokens[index + 1 :]:
        if token.level == 0:
            break
        if token.level == 1 and token.type == "list_item_open":
            items.append(token)
    return items


def _opening_fence(line: str) -> _Fence | None:
    match = _FENCE.fullmatch(line)
    if match is None or (match[2][0] == "`" and "`" in match[3]):
        return None
    return _Fence(len(match[1]), match[2])


def _is_blank(line: str) -> bool:
    return not line.strip(" \t")
