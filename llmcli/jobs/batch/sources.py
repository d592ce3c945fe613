"""The forms that a prompt file can have, each cut into pieces: lines, items of a JSON array, rows of a table.

Reads a stream in bounded memory whatever is in it, and understands no more than what separates the pieces.
Knows no request; `batch/input.py` opens the stream and makes requests of the pieces.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from llmcli.errors import UsageError, quote
from llmcli.jobs.batch.requests import PROMPT_NAMES, SAMPLING_KEYS

Form = Literal["jsonl", "json", "txt", "csv"]

MAX_LINE_BYTES = 8 << 20
CHUNK_BYTES = 1 << 16
TOO_LONG = f"longer than {MAX_LINE_BYTES >> 20} MiB, the limit for one"
_FIELD_COLUMNS = ("id", "custom_id", "system")
_BOM = b"\xef\xbb\xbf"
_SUFFIXES: dict[str, Form] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "txt",
    ".csv": "csv",
    ".tsv": "csv",
}
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_TABLES = (".parquet", ".arrow", ".feather", ".xlsx")
_OUTSIDE_STRINGS = re.compile(rb'["\[\]{},]')
_INSIDE_STRINGS = re.compile(rb'["\\]')


class Piece(NamedTuple):
    """One prompt of a file, unparsed.

    Attributes:
        number: of its line or item, from 1; blank lines count.
        data: its bytes without what separates it from the next one.
        fault: why it can not be had; `data` is then empty.
    """

    number: int
    data: bytes
    fault: str = ""


def refuse_other_kinds(name: str) -> None:
    """Raise a UsageError for what is a table or packed, by its name."""
    suffix = Path(name).suffix.lower()
    if suffix in _PACKED:
        fix = "unpack it, or pipe it: zcat FILE | llmcli run -"
    elif suffix in _TABLES:
        fix = "convert it, for example with pandas: df.to_json('prompts.jsonl', orient='records', lines=True)"
    else:
        return
    raise UsageError(f"{quote(name)}: {suffix} files are not read", fix=fix)


def detect_form(name: str, stream: BinaryIO, wanted: Form | None = None) -> Form:
    """The form of a file: as asked for, by its name, or by its first character.

    A `json` file that does not begin with a bracket holds JSON lines.
    """
    suffix = Path(name).suffix.lower() if wanted is None else f".{wanted}"
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    stream.seek(0)
    start = stream.read(CHUNK_BYTES).removeprefix(_BOM).lstrip()[:1]
    if start == b"[":
        return "json"
    return "jsonl" if suffix == ".json" or start in (b"{", b'"', b"") else "txt"


def pieces(stream: BinaryIO, form: Form, column: str | None) -> Iterator[Piece]:
    """The pieces of a stream, from its start.

    Args:
        column: of a table, the one that holds the prompts.

    Raises:
        UsageError: a table without a usable header.
    """
    stream.seek(0)
    if stream.read(len(_BOM)) != _BOM:
        stream.seek(0)
    if form == "csv":
        return _rows(stream, column)
    return _items(stream) if form == "json" else _lines(stream)


def _lines(stream: BinaryIO) -> Iterator[Piece]:
    """Lines end at \\n and nowhere else; those that hold only blanks are left out."""
    number = 0
    while data := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(data) > MAX_LINE_BYTES and not data.endswith(b"\n"):
            while (rest := stream.readline(CHUNK_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Piece(number, b"", f"{TOO_LONG} line")
        elif not data.isspace():
            yield Piece(number, data.rstrip(b"\r\n"))


def _items(stream: BinaryIO) -> Iterator[Piece]:
    splitter = ArraySplitter()
    while chunk := stream.read(CHUNK_BYTES):
        yield from splitter.push(chunk)
    yield from splitter.end()


class ArraySplitter:
    """Cuts the text of one JSON array into its items, however it comes in chunks.

    Only brackets, commas and strings are looked at, so an item may be wrong in itself. Keeps no more than one
    item, and of one that is too long nothing.
    """

    def __init__(self, max_item_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_item_bytes = max_item_bytes
        self._depth = 0
        self._opened = self._closed = self._told = False
        self._in_string = self._escaped = False
        self._number = 0
        self._size = 0
        self._kept: list[bytes] = []

    def push(self, chunk: bytes) -> Iterator[Piece]:
        """The items that end in this chunk."""
        start = position = 0
        while position < len(chunk) and not self._closed:
            if self._escaped:
                self._escaped = False
                position += 1
                continue
            found = (_INSIDE_STRINGS if self._in_string else _OUTSIDE_STRINGS).search(chunk, position)
            if found is None:
                break
            position = found.end()
            if self._opens_array(found.group()):
                self._opened = True
                start = position
            elif self._depth == 0 or (self._depth == 1 and found.group() == b"," and not self._in_string):
                self._keep(chunk[start : found.start()])
                self._closed = self._depth == 0
                yield from self._take_item()
                start = position
        if not self._closed:
            self._keep(chunk[start:])
        elif not self._told and chunk[start:].strip():
            self._told = True
            yield Piece(self._number + 1, b"", "there is text after the end of the array")

    def end(self) -> Iterator[Piece]:
        """What is left when there are no more chunks."""
        if not self._closed:
            yield Piece(self._number + 1, b"", "the file ends within the array: ] is missing")

    def _opens_array(self, mark: bytes) -> bool:
        """Follow one mark; whether it is the bracket that the whole array begins with."""
        if self._in_string:
            self._in_string = mark != b'"'
            self._escaped = mark == b"\\"
        elif mark == b'"':
            self._in_string = True
        elif mark in b"[{":
            self._depth += 1
            return self._depth == 1
        elif mark != b",":
            self._depth -= 1
        return False

    def _keep(self, part: bytes) -> None:
        if not self._opened:
            return
        self._size += len(part)
        if self._size > self._max_item_bytes:
            self._kept.clear()
        else:
            self._kept.append(part)

    def _take_item(self) -> Iterator[Piece]:
        data, size = b"".join(self._kept).strip(), self._size
        self._kept.clear()
        self._size = 0
        if self._closed and self._number == 0 and not data and size <= self._max_item_bytes:
            return  # []
        self._number += 1
        if size > self._max_item_bytes:
            yield Piece(self._number, b"", f"{TOO_LONG} item")
        elif not data:
            yield Piece(self._number, b"", "there is nothing between two commas, or after the last one")
        else:
            yield Piece(self._number, data)


def _rows(stream: BinaryIO, column: str | None) -> Iterator[Piece]:
    """Rows of a table with a header, each as the JSON of a native line."""
    csv.field_size_limit(MAX_LINE_BYTES)
    text = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="")
    try:
        reader = _reader(text)
        names = _header(reader)
        prompt = prompt_column(names, column) if names else 0
        number = reader.line_num + 1
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Piece(number, b"", f"not a row of a table: {error}")
            else:
                if row:
                    yield _row_piece(number, names, prompt, row)
            number = reader.line_num + 1
    finally:
        text.detach()


def _reader(text: io.TextIOWrapper) -> Any:
    """A reader with the separator that the header line has most of."""
    start = text.tell()
    header = text.readline(CHUNK_BYTES)
    text.seek(start)
    lines = iter(lambda: text.readline(MAX_LINE_BYTES + 1), "")  # iterating the stream would not be bounded
    return csv.reader(lines, delimiter=max(",;\t", key=header.count), strict=True)


def _header(reader: Any) -> list[str]:
    try:
        return [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise UsageError(f"the first line of the table can not be read: {error}") from None


def prompt_column(names: Sequence[str], wanted: str | None) -> int:
    """Which column holds the prompts: the one asked for, a commonly used name, or the only one.

    Raises:
        UsageError: there is no such column, or none of them is known.
    """
    shown = ", ".join(quote(name, 40) for name in names[:20])
    if len(set(names)) != len(names):
        raise UsageError(
            f"the table has two columns of one name: {shown}", fix="rename one in its first line"
        )
    if wanted is not None:
        if wanted not in names:
            raise UsageError(f"no column {quote(wanted)}; the first line of the table has: {shown}")
        return names.index(wanted)
    known = {name.lower(): index for index, name in reversed(list(enumerate(names)))}
    for name in PROMPT_NAMES:
        if name in known:
            return known[name]
    if len(names) == 1:
        return 0
    raise UsageError(f"which column holds the prompts? The first line has: {shown}", fix="give --column NAME")


def _row_piece(number: int, names: Sequence[str], prompt: int, row: Sequence[str]) -> Piece:
    if len(row) != len(names):
        return Piece(number, b"", f"{len(row)} cells, and the table's first line has {len(names)}")
    value: dict[str, Any] = {"prompt": row[prompt]}
    labels: dict[str, str] = {}
    for name, cell in zip(names, row, strict=True):
        if name == names[prompt] or not cell:
            continue
        if name in _FIELD_COLUMNS:
            value[name] = cell
        elif name in SAMPLING_KEYS:
            value[name] = _number_or_text(cell)
        else:
            labels[name] = cell
    if labels:
        value["meta"] = labels
    try:
        return Piece(number, json.dumps(value, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return Piece(number, b"", "not UTF-8")


def _number_or_text(cell: str) -> Any:
    try:
        return json.loads(cell)
    except ValueError:
        return cell
