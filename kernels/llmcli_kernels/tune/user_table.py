"""The file of a user's own rows: what tuning found is put among what is there, and written in one step.

Knows the form of tuning tables, not how their rows were found.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmcli_kernels.tuning import TuningRow, TuningTable, in_front, read_table


def read_user_table(path: Path, table: TuningTable) -> TuningTable:
    """A user's rows; none where there is no file.

    Raises:
        TuningTableError: the file is wrong, or does not go with the checked-in table.
    """
    if not path.exists():
        return TuningTable(path.name, {})
    found = read_table(path)
    in_front(found, table)
    return found


def add_row(user: TuningTable, operation: str, new: TuningRow) -> TuningTable:
    """`user` with one more row, in the place of one with the same bounds.

    Smaller bounds come first, so that the row of exactly a shape's sizes is found before one for larger ones.
    """
    others = [row for row in user.rows.get(operation, ()) if row.up_to != new.up_to]
    ordered = sorted([*others, new], key=lambda row: sum(row.up_to.values()))
    return TuningTable(user.name, {**user.rows, operation: tuple(ordered)})


def write_user_table(path: Path, about: Mapping[str, str], user: TuningTable) -> None:
    """Under another name first: whoever reads at the same time sees the old rows or the new ones.

    Raises:
        OSError: it can not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
        temporary = Path(file.name)
    try:
        temporary.write_text(_text(about, user), "utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _text(about: Mapping[str, str], user: TuningTable) -> str:
    """One line a row, as in the checked-in tables."""
    blocks = []
    for operation, rows in user.rows.items():
        lines = ",\n".join(f"      {json.dumps(_as_json(row))}" for row in rows)
        blocks.append(f"    {json.dumps(operation)}: [\n{lines}\n    ]")
    operations = ",\n".join(blocks)
    return f'{{\n  "about": {json.dumps(dict(about))},\n  "operations": {{\n{operations}\n  }}\n}}\n'


def _as_json(row: TuningRow) -> dict[str, Any]:
    return {"up_to": dict(row.up_to), "config": dict(row.config)}
