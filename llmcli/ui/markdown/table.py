"""Tables of Markdown on a terminal: columns where they fit, one field below the other where they do not.

Owns the width of columns. Knows nothing of Markdown's source. Called by `markdown/render.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from llmcli.ui.wrap import text_cells, wrap_text

if TYPE_CHECKING:
    from rich.text import Text

MIN_COLUMN = 8
"""A table whose columns would have to be narrower than this is shown field by field."""

_BETWEEN = "  "


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of a header and of rows; each row as long as the header.

    Attributes:
        aligned: left, center, right or nothing, per column.
    """

    header: "Sequence[Text]"
    rows: "Sequence[Sequence[Text]]"
    aligned: Sequence[str]


def table_lines(table: Table, width: int) -> "list[Text]":
    """The lines of a table, none wider than `width` cells if a column of 8 fits."""
    widths = _column_widths(table, width)
    if widths is None:
        return _fields(table, width)
    return _columns(table, widths)


def _column_widths(table: Table, width: int) -> list[int] | None:
    """What each column needs; if that is too much, the widest give way. None: there is no room for columns."""
    columns = zip(table.header, *table.rows, strict=True)
    needed = [max(1, *(text_cells(cell.plain) for cell in column)) for column in columns]
    room = width - len(_BETWEEN) * (len(needed) - 1)
    if sum(needed) <= room:
        return needed
    limit = MIN_COLUMN
    if sum(min(cells, limit) for cells in needed) > room:
        return None
    while sum(min(cells, limit + 1) for cells in needed) <= room:
        limit += 1
    return [min(cells, limit) for cells in needed]


def _columns(table: Table, widths: Sequence[int]) -> "list[Text]":
    from rich.text import Text

    header = [cell.copy() for cell in table.header]
    for cell in header:
        cell.stylize("bold")
    rule = Text.assemble((_BETWEEN.join("─" * width for width in widths), "dim"))
    lines = [*_row(header, widths, table.aligned), rule]
    for row in table.rows:
        lines += _row(row, widths, table.aligned)
    return lines


def _row(cells: "Sequence[Text]", widths: Sequence[int], aligned: Sequence[str]) -> "list[Text]":
    from rich.text import Text

    columns = [wrap_text(cell, width) for cell, width in zip(cells, widths, strict=True)]
    lines = []
    for parts in zip_longest(*columns):
        line = Text()
        for index, (part, width, side) in enumerate(zip(parts, widths, aligned, strict=True)):
            text = part or Text()
            space = max(0, width - text_cells(text.plain))
            before = {"right": space, "center": space // 2}.get(side, 0)
            line.append(_BETWEEN * (index > 0) + " " * before).append_text(text).append(
                " " * (space - before)
            )
        line.rstrip()
        lines.append(line)
    return lines


def _fields(table: Table, width: int) -> "list[Text]":
    """Each row as lines of `header: cell`, with a blank line between rows."""
    from rich.text import Text

    lines: list[Text] = []
    for row in table.rows or [[Text()] * len(table.header)]:
        if lines:
            lines.append(Text())
        for name, cell in zip(table.header, row, strict=True):
            label = name.copy()
            label.stylize("bold")
            lines += wrap_text(Text.assemble(label, ": ", cell), width)
    return lines
