"""How a listing is printed: for people, for programs, or only the names.

    COLUMNS = (Column("NAME", lambda row: row.name), Column("SIZE", lambda row: human_bytes(row.size)))
    print_listing(rows, COLUMNS, form)

Rows are dataclasses or mappings. JSON has all their values as they are, the other forms a cell for each column.
Knows nothing of what is listed; called by the commands that list something, with the value of `ListingFormat`.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import typer

from llmcli.errors import quote

Form = Literal["auto", "human", "json", "jsonl", "quiet"]
GAP = 2
MAX_CELL = 1000


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table: its head, and what of a row stands in it (None is shown as "-").

    A terminal that is too narrow does without columns that are `spare`, the lowest first; 0 is never left out. Numbers
    to be compared stand at the `right`.
    """

    title: str
    cell: Callable[[Any], object]
    spare: int = 0
    right: bool = False

    def text(self, row: Any) -> str:
        """The cell as one line without control characters."""
        value = self.cell(row)
        return "-" if value is None else quote(str(value), MAX_CELL)


def print_listing(rows: Sequence[Any], columns: Sequence[Column], form: Form, *, key: str = "name") -> None:
    """Print rows on stdout.

    Args:
        form: auto is human on a terminal, and elsewhere plain text with a tab between columns.
        key: field of a row that quiet prints.
    """
    if form == "json":
        typer.echo(json.dumps([_as_mapping(row) for row in rows], indent=2))
    elif form == "jsonl":
        for row in rows:
            typer.echo(json.dumps(_as_mapping(row)))
    elif form == "quiet":
        for row in rows:
            typer.echo(quote(str(_as_mapping(row)[key]), MAX_CELL))
    else:
        if form == "human" or sys.stdout.isatty():
            print_table(rows, columns)
        else:
            for line in _lines(rows, columns):
                typer.echo("\t".join(line))


def _as_mapping(row: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(row):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    return dict(row)


def _lines(rows: Sequence[Any], columns: Sequence[Column]) -> list[list[str]]:
    """The titles, then the cells of each row."""
    titles = [column.title for column in columns]
    return [titles, *([column.text(row) for column in columns] for row in rows)]


def print_table(rows: Sequence[Any], columns: Sequence[Column]) -> None:
    """Print aligned columns under a bold head.

    Where they are wider than the terminal, spare columns are left out; if that does not suffice, each row becomes a
    block of lines with all of them.
    """
    lines = _lines(rows, columns)
    if not sys.stdout.isatty() and not os.environ.get("FORCE_COLOR"):
        for text in _aligned(lines, columns):
            typer.echo(text)
        return
    from rich.text import Text  # takes a while to import, as does its console

    from llmcli.ui.console import stdout_console

    console = stdout_console()
    kept = _kept(lines, columns, console.width) if console.is_terminal else list(range(len(columns)))
    if kept is None:
        blocks = _blocks(lines)
    else:
        fitting = [[line[at] for at in kept] for line in lines]
        head, *others = _aligned(fitting, [columns[at] for at in kept])
        blocks = [(head, ""), *(("", text) for text in others)]
    for head, text in blocks:
        console.print(Text(head, style="bold").append(text, style="not bold"), soft_wrap=True)


def _aligned(lines: Sequence[Sequence[str]], columns: Sequence[Column]) -> list[str]:
    widths = _widths(lines)
    sides = [column.right for column in columns]
    return [(" " * GAP).join(map(_padded, line, widths, sides)).rstrip() for line in lines]


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len

    return [max(map(cell_len, column)) for column in zip(*lines, strict=True)]


def _kept(lines: list[list[str]], columns: Sequence[Column], max_width: int) -> list[int] | None:
    """The places of the columns without as many spare ones as must go to fit; None if that does not suffice."""
    kept = list(range(len(columns)))
    spare = sorted((at for at in kept if columns[at].spare), key=lambda at: columns[at].spare)
    for left_out in [None, *spare]:
        kept = [at for at in kept if at != left_out]
        fitting = [[line[at] for at in kept] for line in lines]
        if sum(_widths(fitting)) + GAP * (len(kept) - 1) <= max_width:
            return kept
    return None


def _blocks(lines: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Title and cell, one to a line, with an empty line between the rows."""
    from rich.cells import cell_len

    titles, *rows = lines
    width = max(map(cell_len, titles))
    blocks: list[tuple[str, str]] = []
    for row in rows:
        blocks += [("", "")] * bool(blocks)
        blocks += [(_padded(title, width) + " " * GAP, cell) for title, cell in zip(titles, row, strict=True)]
    return blocks


def _padded(cell: str, width: int, right: bool = False) -> str:
    from rich.cells import cell_len

    padding = " " * (width - cell_len(cell))
    return padding + cell if right else cell + padding
