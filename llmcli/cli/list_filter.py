"""Which rows of `llmcli list` are shown, and in which order: `--filter 'size>4GB'` and `--sort accessed:asc`.

Pure; the words are those of `hf cache ls`, and a few more. Called by `cli/list.py`.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar

from llmcli.config import parse_number
from llmcli.errors import UsageError, quote
from llmcli.nearest import did_you_mean


class Sortable(Protocol):
    """What a row must tell of itself."""

    @property
    def name(self) -> str: ...
    @property
    def quantization(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def parameters(self) -> int | None: ...
    @property
    def context(self) -> int | None: ...
    @property
    def fits(self) -> bool | None: ...
    @property
    def modified(self) -> float: ...
    @property
    def accessed(self) -> float: ...


Row = TypeVar("Row", bound=Sortable)
Test = Callable[[Sortable, float], bool]

# What may be typed -> the field of a row.
FIELDS = {
    "name": "name",
    "quant": "quantization",
    "size": "size",
    "params": "parameters",
    "ctx": "context",
    "fits": "fits",
    "modified": "modified",
    "accessed": "accessed",
}
AGES = ("modified", "accessed")
TEXTS = ("name", "quant")
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}
SECONDS = {
    "s": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "d": 86400,
    "w": 7 * 86400,
    "mo": 30 * 86400,
    "y": 365 * 86400,
}
COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
BYTES = {"": 1} | {
    f"{letter}{binary}": base ** (power + 1)
    for power, letter in enumerate("kmgt")
    for binary, base in (("", 1000), ("i", 1024))
}
YES_OR_NO = {"yes": True, "true": True, "no": False, "false": False}
_EXPRESSION = re.compile(r"\s*([A-Za-z]+)\s*(>=|<=|!=|=|>|<)\s*(.+?)\s*")
_WITH_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


@dataclass(frozen=True, slots=True)
class Order:
    """A field and a direction."""

    field: str = "name"
    descending: bool = False


def parse_filter(expression: str) -> Test:
    """`size>4GB`, `params<=8B`, `accessed>30d` (longer ago), `fits=yes`, `name=TheBloke/*`.

    Raises:
        UsageError: no such key, operator or value.
    """
    match = _EXPRESSION.fullmatch(expression)
    if match is None:
        raise UsageError(
            f"--filter {quote(expression)!r} is not KEY, an operator and a value",
            fix=f"for example --filter 'size>4GB'; keys: {', '.join(FIELDS)}; operators: {' '.join(OPERATORS)}",
        )
    key, sign, text = match[1].lower(), match[2], match[3]
    field = _field(key, f"--filter {quote(expression)}")
    if key in TEXTS or key == "fits":
        if sign not in ("=", "!="):
            raise UsageError(f"--filter {quote(expression)}: {key} takes = or !=, got {sign}")
        wanted = sign == "="
        if key == "fits":
            fits = _parse(YES_OR_NO.__getitem__, text.lower(), expression, "yes or no")
            return lambda row, now: (row.fits is fits) == wanted
        return lambda row, now: fnmatchcase(getattr(row, field).lower(), text.lower()) == wanted
    compare = OPERATORS[sign]
    if key in AGES:
        age = _parse(_seconds, text, expression, "a time such as 12h, 30d or 2w")
        return lambda row, now: compare(now - getattr(row, field), age)
    parse = _count if key == "params" else _bytes if key == "size" else parse_number
    limit = _parse(parse, text, expression, "a number such as 4GB, 7B or 8K")
    return lambda row, now: getattr(row, field) is not None and compare(getattr(row, field), limit)


def parse_order(text: str) -> Order:
    """`size`, `size:asc`, `name:desc`: names from A to Z and all else from the largest or newest, unless told.

    Raises:
        UsageError: no such key or direction.
    """
    key, _, direction = text.lower().partition(":")
    field = _field(key, f"--sort {quote(text)}")
    if direction not in ("", "asc", "desc"):
        raise UsageError(f"--sort {quote(text)}: the direction is asc or desc, got {quote(direction)}")
    return Order(field, direction == "desc" or (not direction and key not in TEXTS))


def select(rows: Iterable[Row], tests: Sequence[Test], order: Order | None, now: float) -> list[Row]:
    """The rows that pass all tests, in order; what lacks a value comes last.

    Args:
        now: seconds since the epoch.
    """
    kept = [row for row in rows if all(test(row, now) for test in tests)]
    if order is None:
        return kept

    def value(row: Row) -> Any:
        found = getattr(row, order.field)
        return found.lower() if isinstance(found, str) else found

    known = [row for row in kept if value(row) is not None]
    unknown = [row for row in kept if value(row) is None]
    return sorted(known, key=value, reverse=order.descending) + unknown


def _field(key: str, where: str) -> str:
    if key not in FIELDS:
        fix = did_you_mean(key, FIELDS) or f"keys: {', '.join(FIELDS)}"
        raise UsageError(f"{where}: there is no key {quote(key)}", fix=fix)
    return FIELDS[key]


def _parse(parse: Callable[[str], Any], text: str, expression: str, wanted: str) -> Any:
    try:
        return parse(text)
    except (ValueError, KeyError):
        raise UsageError(f"--filter {quote(expression)}: {quote(text)} is not {wanted}") from None


def _bytes(text: str) -> int:
    """4GB is decimal, 4GiB is binary; the B may be left out, and capitals do not count."""
    number, unit = _number_and_unit(text)
    return int(number * BYTES[unit.lower().removesuffix("b")])


def _count(text: str) -> int:
    """7B is 7 billion, as in the names of models."""
    number, unit = _number_and_unit(text)
    return int(number * COUNTS[unit.lower()])


def _seconds(text: str) -> float:
    number, unit = _number_and_unit(text)
    return number * SECONDS[unit.lower()]


def _number_and_unit(text: str) -> tuple[float, str]:
    match = _WITH_UNIT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return float(match[1]), match[2]
