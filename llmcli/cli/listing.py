"""How a listing is printed: for people, for programs, or only the names.

    print_listing(rows, (Column("NAME", "name"), Column("SIZE", "size", human_bytes)), form)

Rows are dataclasses or mappings. JSON has all their values as they are, the other forms one cell for each column.
Knows nothing of what is listed; called by the commands that list something, with the value of `ListingFormat`.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import typer

from llmcli.errors import quote

Form = Literal["auto", "human", "json", "jsonl", "quiet"]
GAP = 2
MAX_CELL = 1000


def _show(value: Any) -> str:
    return "-" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table.

    Attributes:
        title: its head.
        field: the value of the row that it shows.
        show: turns that value into a cell; None becomes "-" before it is asked.
    """

    title: str
    field: str
    show: Callable[[Any], str] = _show

    def cell(self, row: Mapping[str, Any]) -> str:
        """What stands in this column, as one line without control characters."""
        value = row[self.field]
        return quote(_show(None) if value is None else self.show(value), MAX_CELL)


def print_listing(rows: Sequence[Any], columns: Sequence[Column], form: Form) -> None:
    """Print rows on stdout.

    Args:
        columns: those of the table; the first one's field is the name that `quiet` prints.
        form: auto is human on a terminal, and elsewhere plain text with a tab between columns.
    """
    records = [_as_mapping(row) for row in rows]
    if form == "json":
        typer.echo(json.dumps(records, indent=2))
    elif form == "jsonl":
        for record in records:
            typer.echo(json.dumps(record))
    elif form == "quiet":
        for record in records:
            typer.echo(quote(str(record[columns[0].field]), MAX_CELL))
    else:
        lines = [[column.title for column in columns]]
        lines += [[column.cell(record) for column in columns] for record in records]
        if form == "human" or sys.stdout.isatty():
            _print_table(lines)
        else:
            for line in lines:
                typer.echo("\t".join(line))


def _as_mapping(row: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(row):
        return {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    return dict(row)


def _print_table(lines: Sequence[Sequence[str]]) -> None:
    """Aligned columns; where they are wider than the terminal, a block of lines for each row."""
    from rich.cells import cell_len
    from rich.text import Text

    from llmcli.ui.console import stdout_console

    console = stdout_console()
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    titles, *rows = lines
    if console.is_terminal and sum(widths) + GAP * (len(widths) - 1) > console.width:
        widest = max(map(cell_len, titles))
        for number, row in enumerate(rows):
            if number:
                console.print()
            for title, cell in zip(titles, row, strict=True):
                line = Text(_padded(title, widest), style="bold").append(cell, style="not bold")
                console.print(line, soft_wrap=True)
        return
    for number, row in enumerate(lines):
        cells = (_padded(cell, width) for cell, width in zip(row, widths, strict=True))
        line = Text("".join(cells).rstrip(), style="" if number else "bold")
        console.print(line, soft_wrap=True)


def _padded(cell: str, width: int) -> str:
    from rich.cells import cell_len

    return cell + " " * (width - cell_len(cell) + GAP)
