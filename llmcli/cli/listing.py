"""How a listing is printed: for people, for programs, or only the names.

    COLUMNS = (Column("NAME", lambda row: row.name), Column("SIZE", lambda row: human_bytes(row.size)))
    print_listing(rows, COLUMNS, form)

Rows are dataclasses or mappings. JSON has all their values as they are, the other forms a cell for each column.
Knows nothing of what is listed; called by the commands that list something, with the value of `ListingFormat`.
"""

import dataclasses
import json
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
    """One column of the table: its head, and what of a row stands in it (None is shown as "-")."""

    title: str
    cell: Callable[[Any], object]

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
        lines = [[column.title for column in columns]]
        lines += [[column.text(row) for column in columns] for row in rows]
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
    """Aligned columns under a bold head; where they are wider than the terminal, a block of lines for each row."""
    from rich.cells import cell_len
    from rich.text import Text

    from llmcli.ui.console import stdout_console

    console = stdout_console()
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    if console.is_terminal and sum(widths) + GAP * (len(widths) - 1) > console.width:
        blocks = _blocks(lines)
    else:
        texts = ["".join(map(_padded, line, widths)).rstrip() for line in lines]
        blocks = [(texts[0], "")] + [("", text) for text in texts[1:]]
    for head, text in blocks:
        console.print(Text(head, style="bold").append(text, style="not bold"), soft_wrap=True)


def _blocks(lines: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Title and cell, one to a line, with an empty line between the rows."""
    from rich.cells import cell_len

    titles, *rows = lines
    width = max(map(cell_len, titles))
    blocks: list[tuple[str, str]] = []
    for row in rows:
        blocks += [("", "")] * bool(blocks)
        blocks += [(_padded(title, width), cell) for title, cell in zip(titles, row, strict=True)]
    return blocks


def _padded(cell: str, width: int) -> str:
    from rich.cells import cell_len

    return cell + " " * (width - cell_len(cell) + GAP)
