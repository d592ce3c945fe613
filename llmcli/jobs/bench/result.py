"""What a benchmark leaves: rows of samples under a header, kept in a file while it runs, and read back.

Two forms of file. JSON is one document, replaced as a whole after every change, so whenever the program is killed
the file holds all that was done before. JSON Lines (a name that ends in .jsonl) gets one line for each finished
row, each with the whole header, and is appended to. Knows no engine and prints nothing; `cli/bench*.py` write,
`jobs/bench/compare.py` reads.
"""

import contextlib
import json
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmcli import strict_json
from llmcli.errors import OutputError, UsageError, quote
from llmcli.jobs.bench.stats import stdev

FORMAT = "llmcli bench 1"
MAX_RESULT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One test and all its runs so far.

    Attributes:
        test: its name, which tells all that it depends on but the batch: "pp512", "tg128 @ d512".
        batch: sequences at once; None where there is no such number.
        unit: of the samples; one that ends in "/s" is a rate, of which more is better, others are times.
        samples: one value for each run.
        details: further values of any kind, ready for JSON.
    """

    test: str
    unit: str
    samples: tuple[float, ...]
    batch: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_rate(self) -> bool:
        return self.unit.endswith("/s")

    @property
    def key(self) -> tuple[str, int | None]:
        """What the same test of another result has too."""
        return self.test, self.batch

    def as_json(self) -> dict[str, Any]:
        values = self.samples
        return {
            "test": self.test,
            "batch": self.batch,
            "unit": self.unit,
            "mean": statistics.fmean(values) if values else None,
            "stdev": stdev(values),
            "median": statistics.median(values) if values else None,
            "min": min(values, default=None),
            "max": max(values, default=None),
            "samples": list(values),
            **self.details,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is the same for all rows of a run.

    Attributes:
        kind: the subcommand: "quick", "latency", ...
        plan: what was asked for.
        environment: see `jobs/environment.py`.
    """

    kind: str
    plan: Mapping[str, Any]
    environment: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "kind": self.kind, "environment": self.environment, "plan": self.plan}


def document(
    header: Header, rows: Sequence[Row], *, finished: bool, summary: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The result as one JSON object; `summary` has what belongs to no single row."""
    tests = [row.as_json() for row in rows]
    return {**header.as_json(), "finished": finished, **(summary or {}), "tests": tests}


def line(header: Header, row: Row) -> str:
    """One row with all its context, as a line of JSON."""
    return dumps({**header.as_json(), **row.as_json()})


def dumps(value: Any) -> str:
    """JSON in one line; a number that is not finite is a mistake of ours, not of the file's reader."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


class ResultFile:
    """The file that a benchmark keeps its result in.

    Args:
        path: one that ends in .jsonl is appended to, any other is replaced.
        overwrite: whether a file that is there may be replaced.

    Attributes:
        in_lines: whether it is appended to.
        is_device: whether it is something that can not be replaced, such as a pipe: to be written once.

    Raises:
        UsageError: it can not be written, or would be lost; found before anything is measured.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        self.in_lines = path.suffix.lower() == ".jsonl"
        folder = path.absolute().parent
        if not folder.is_dir():
            raise UsageError(
                f"--save {quote(str(path))}: the folder {quote(str(folder))} does not exist",
                fix=f"mkdir -p {quote(str(folder))}",
            )
        if path.is_dir():
            raise UsageError(f"--save {quote(str(path))} is a folder", fix="name a file in it")
        self.is_device = path.exists() and not path.is_file()
        if path.is_file() and not (overwrite or self.in_lines):
            raise UsageError(
                f"--save {quote(str(path))} exists",
                fix="give another name, --overwrite to replace it, or a name that ends in .jsonl to append",
            )
        if not os.access(path if path.exists() else folder, os.W_OK):
            raise UsageError(f"--save {quote(str(path))} is not writable")

    def append(self, header: Header, row: Row) -> None:
        """Add one finished row to a file of lines.

        Raises:
            OutputError: disk full or the like; nothing of the row is left.
        """
        data = (line(header, row) + "\n").encode()
        with self._told(), open(self.path, "ab+", buffering=0) as stream:
            end = 0 if self.is_device else stream.seek(0, os.SEEK_END)
            try:
                if end and os.pread(stream.fileno(), 1, end - 1) != b"\n":
                    data = b"\n" + data  # after a line that was torn when something was killed
                _write_all(stream.fileno(), data)
            except OSError:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    os.ftruncate(stream.fileno(), end)
                raise

    def replace(self, result: Mapping[str, Any], *, sync: bool = True) -> None:
        """Put a new document in the place of the one before.

        Args:
            sync: wait until the disk has it; without, it outlives the program, and not a loss of power.

        Raises:
            OutputError: disk full or the like; the document before is untouched.
        """
        data = (json.dumps(result, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode()
        with self._told():
            if self.is_device:
                self.path.write_bytes(data)
            else:
                _replace(Path(os.path.realpath(self.path)), data, sync)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"--save {quote(str(self.path))} can not be written: {error.strerror}"
            ) from None


def _replace(path: Path, data: bytes, sync: bool) -> None:
    """Write beside the file and rename: whoever reads it finds the old one or the new one, whole."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb", buffering=0) as stream:
            _write_all(stream.fileno(), data)
            if sync:
                os.fsync(stream.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read_result(path: Path) -> dict[str, Any]:
    """A result from a file: the document, or the last run of a file of lines, torn ones left out.

    Raises:
        UsageError: there is no such file, or no result in it.
    """
    try:
        if path.stat().st_size > MAX_RESULT_BYTES:
            raise UsageError(
                f"{quote(str(path))} has more than {MAX_RESULT_BYTES >> 20} MiB: it is no result"
            )
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"can not read {quote(str(path))}: {error.strerror}") from None
    try:
        found: dict[str, Any] = (
            _from_lines(data) if path.suffix.lower() == ".jsonl" else strict_json.loads(data)
        )
        _check(found)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{quote(str(path))} is no result of llmcli bench: {quote(str(error))}",
            fix="make one with llmcli bench --save FILE",
        ) from None
    return found


def _from_lines(data: bytes) -> dict[str, Any]:
    rows = []
    for text in data.split(b"\n"):
        with contextlib.suppress(ValueError):
            row = strict_json.loads(text)
            if isinstance(row, dict) and row.get("format") == FORMAT:
                rows.append(row)
    if not rows:
        raise ValueError(f'it has no whole line with "format": "{FORMAT}"')
    keys = ("format", "kind", "environment", "plan")
    head = {key: rows[-1].get(key) for key in keys}
    # one run wrote all lines that have its header
    own = [row for row in rows if {key: row.get(key) for key in keys} == head]
    return {**head, "tests": [{k: v for k, v in row.items() if k not in keys} for row in own]}


def _check(found: Any) -> None:
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f'there is no "format": "{FORMAT}" in it')
    if not isinstance(found.get("environment"), dict) or not isinstance(found.get("tests"), list):
        raise ValueError("environment or tests are missing")
    for row in found["tests"]:
        if not isinstance(row, dict) or not isinstance(row.get("test"), str):
            raise ValueError("a test has no name")
        samples = row.get("samples")
        if not isinstance(row.get("unit"), str) or not isinstance(samples, list):
            raise ValueError(f"the test {row['test']} has no unit or no samples")
        if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in samples):
            raise ValueError(f"the samples of {row['test']} are not all numbers")


def read_rows(result: Mapping[str, Any]) -> list[Row]:
    """The rows of a result that `read_result` has checked."""
    return [
        Row(test=row["test"], unit=row["unit"], samples=tuple(row["samples"]), batch=row.get("batch"))
        for row in result["tests"]
    ]
