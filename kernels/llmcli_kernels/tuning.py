"""Tile sizes and launch parameters of the kernels: a checked-in table for each GPU architecture, read from JSON.

Owns the form of the tables and the choice of a row; knows no kernel, so what a config means is the business of the
operation that picks it. Kernel modules ask `pick`, ahead-of-time compilation walks `configs`, and a user's own
table (`llmcli tune` writes it) goes in front of the checked-in one. Nothing is tuned at run time.

    {"about": {"note": "why these values"},
     "operations": {"int4_skinny": [{"up_to": {"m": 8, "n": 4096}, "config": {"BN": 64, "num_warps": 1}},
                                    {"up_to": {}, "config": {"BN": 128, "num_warps": 2}}]}}

Rows are tried in order; the last one of a checked-in operation bounds nothing and so always fits. A file that says
{"same_as": "sm_89"} instead of "operations" takes its rows from there.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "tuning_tables"
ROW_KEYS = {"up_to", "config", "note"}
FILE_KEYS = {"about", "operations", "same_as"}


class TuningTableError(ValueError):
    """A table that can not be used; the message names the file and the row."""


@dataclass(frozen=True)
class TuningRow:
    """One line of a table.

    Attributes:
        up_to: the largest sizes that it is for, by name; a size that is not named does not matter.
        config: what the operation launches its kernel with.
        place: file, operation and number of the row, for messages.
    """

    up_to: Mapping[str, int]
    config: Mapping[str, int | str]
    place: str

    def fits(self, sizes: Mapping[str, int]) -> bool:
        """Whether no size is above its bound."""
        for name in self.up_to:
            if name not in sizes:
                known = ", ".join(sizes) or "none"
                raise TuningTableError(f"{self.place}: no size is called {name!r}; there are: {known}")
        return all(sizes[name] <= bound for name, bound in self.up_to.items())


@dataclass(frozen=True)
class TuningTable:
    """The rows of every operation, the first that fits wins."""

    name: str
    rows: Mapping[str, tuple[TuningRow, ...]]

    def pick(self, operation: str, **sizes: int) -> dict[str, Any]:
        """The config of the first row whose bounds are all at or above `sizes`.

        Raises:
            TuningTableError: no row fits, or a row bounds a size that was not given.
        """
        for row in self._rows(operation):
            if row.fits(sizes):
                return dict(row.config)
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise TuningTableError(f"{self.name}: no row of {operation!r} is for {shown}")

    def configs(self, operation: str, **fixed: int) -> list[dict[str, Any]]:
        """The different configs that `pick` may return, in order: what has to compile.

        Args:
            fixed: sizes that are known; all others may be anything.
        """
        found: list[dict[str, Any]] = []
        for row in self._rows(operation):
            if not all(fixed[name] <= bound for name, bound in row.up_to.items() if name in fixed):
                continue
            if row.config not in found:
                found.append(dict(row.config))
            if row.up_to.keys() <= fixed.keys():
                break  # it always fits, so no later row is ever reached
        return found

    def _rows(self, operation: str) -> tuple[TuningRow, ...]:
        if operation not in self.rows:
            raise TuningTableError(
                f"{self.name}: no operation {operation!r}; there are: {', '.join(self.rows)}"
            )
        return self.rows[operation]


def load_table(capability: tuple[int, int], user_file: Path | None = None) -> TuningTable:
    """The table for a GPU of this compute capability: the nearest checked-in one that is not for a newer one.

    Args:
        user_file: rows that go first, for operations that the checked-in table has; need not exist.

    Raises:
        TuningTableError: the GPU is older than every table, or a file is wrong.
    """
    name = nearest_architecture(capability)
    table = read_table(FOLDER / f"{name}.json")
    if user_file is None or not user_file.exists():
        return table
    try:
        return in_front(read_table(user_file), table)
    except TuningTableError as error:
        raise TuningTableError(f"{error}; delete the file, or run `llmcli tune` again") from None


def nearest_architecture(capability: tuple[int, int]) -> str:
    """Name of the checked-in table for a GPU: (8, 7) has "sm_86"."""
    known = {(int(text[:-1]), int(text[-1])): f"sm_{text}" for text in _architectures()}
    below = [found for found in known if found <= capability]
    if not below:
        oldest = ".".join(map(str, min(known)))
        given = ".".join(map(str, capability))
        raise TuningTableError(f"compute capability {given} is older than {oldest}, the oldest with a table")
    return known[max(below)]


def _architectures() -> list[str]:
    return [path.stem.removeprefix("sm_") for path in FOLDER.glob("sm_*.json")]


def in_front(user: TuningTable, table: TuningTable) -> TuningTable:
    """`table` with the rows of `user` first.

    Raises:
        TuningTableError: a row is for no operation of `table`, or its config has other keys or types.
    """
    for operation, rows in user.rows.items():
        if operation not in table.rows:
            raise TuningTableError(f"{user.name}: {table.name} has no operation {operation!r}")
        _check_alike((*table.rows[operation][:1], *rows))
    merged = {operation: (*user.rows.get(operation, ()), *rows) for operation, rows in table.rows.items()}
    return TuningTable(f"{user.name} before {table.name}", merged)


def read_table(path: Path) -> TuningTable:
    """One file.

    Raises:
        TuningTableError: it can not be read, is not JSON, or has a key or a type that it should not have.
    """
    data = _mapping(_load(path), FILE_KEYS, path.name)
    about = _mapping(data.get("about", {}), None, f"{path.name}: about")
    if not all(isinstance(text, str) for text in about.values()):
        raise TuningTableError(f"{path.name}: about holds texts only")
    if "same_as" in data:
        if "operations" in data or not isinstance(data["same_as"], str):
            raise TuningTableError(f"{path.name}: same_as names a table and stands instead of operations")
        return read_table(FOLDER / f"{Path(data['same_as']).name}.json")
    operations = _mapping(data.get("operations"), None, f"{path.name}: operations")
    rows = {name: tuple(_rows(values, f"{path.name}: {name}")) for name, values in operations.items()}
    for of_operation in rows.values():
        _check_alike(of_operation)
    return TuningTable(path.name, rows)


def _load(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8"), object_pairs_hook=_unique)
    except (OSError, ValueError) as error:
        raise TuningTableError(f"{path}: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is there twice")
    return dict(pairs)


def _rows(values: object, place: str) -> Iterable[TuningRow]:
    if not isinstance(values, list) or not values:
        raise TuningTableError(f"{place}: must be a list of rows, got {values!r}")
    for number, value in enumerate(values, 1):
        here = f"{place} row {number}"
        row = _mapping(value, ROW_KEYS, here)
        if not isinstance(row.get("note", ""), str):
            raise TuningTableError(f"{here}: note must be a text, got {row['note']!r}")
        up_to = _mapping(row.get("up_to"), None, f"{here}: up_to")
        for name, bound in up_to.items():
            if type(bound) is not int or bound < 0:
                raise TuningTableError(f"{here}: up_to {name} must be a whole number, got {bound!r}")
        config = _mapping(row.get("config"), None, f"{here}: config")
        for name, setting in config.items():
            if type(setting) not in (int, str, bool):
                raise TuningTableError(
                    f"{here}: config {name} must be a whole number, a text or true/false, got {setting!r}"
                )
        yield TuningRow(up_to, config, here)


def _mapping(value: object, known: set[str] | None, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TuningTableError(f"{place}: must be an object, got {value!r}")
    for name in value:
        if known is not None and name not in known:
            raise TuningTableError(f"{place}: unknown key {name!r}; known: {', '.join(sorted(known))}")
    return value


def _check_alike(rows: tuple[TuningRow, ...]) -> None:
    """All configs of an operation have the keys and types of the first."""
    first = {name: type(setting) for name, setting in rows[0].config.items()}
    for row in rows[1:]:
        found = {name: type(setting) for name, setting in row.config.items()}
        if found != first:
            wrong = ", ".join(
                sorted(name for name in first.keys() | found if first.get(name) != found.get(name))
            )
            raise TuningTableError(f"{row.place}: config differs from that of {rows[0].place} in {wrong}")
