"""Going on with the results of an earlier run: what is finished, whether its lines are still the same.

A record says by its key which line it answers, and a record is whole or it does not count. So the file of
results alone decides what is left to do, wherever and however the run before was killed. Knows the records'
forms, no engine; `cli/run_job.py` puts it together.
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from llmcli.errors import OutputError, UsageError, quote
from llmcli.jobs.batch.keys import LineKey, SpillingMap, key_of_record
from llmcli.jobs.batch.manifest import manifest_path, read_manifest, write_manifest
from llmcli.jobs.batch.output import Mode, RecordWriter, open_locked
from llmcli.jobs.batch.records import OPENAI_ID_PREFIX
from llmcli.jobs.disk import Disk, write_all

_MET = ""  # in the place of a digest: the input has this line
_DISK = Disk()


class FinishedRecord(NamedTuple):
    """What a record tells of its line; `failure` is the kind of its error, `shown` names the line to people."""

    key: LineKey
    failure: str | None
    shown: str


def read_record(line: bytes) -> FinishedRecord | None:
    """A native or OpenAI record, or None for anything else."""
    try:
        record = json.loads(line)
        if "custom_id" in record:
            request_id, index = record["custom_id"], record["custom_id"]
            text = record["id"].removeprefix(OPENAI_ID_PREFIX)
            error = record["error"] or record["response"]["body"].get("error")
        else:
            request_id, index = record["id"], record["index"]
            text, error = record["key"], record["error"]
        if not isinstance(text, str) or not text:
            return None
        key = key_of_record(text, request_id)
        shown = f"id {request_id}" if key.name.startswith("=") else f"number {int(index) + 1}"
        return FinishedRecord(key, None if error is None else str(error["code"]), shown)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def read_records(stream: BinaryIO, shown: str) -> Iterator[tuple[FinishedRecord, bytes]]:
    """The whole records of a results file; a torn one at its end is left out.

    Raises:
        UsageError: there is something else in the file.
    """
    stream.seek(0)
    number = 0
    while line := stream.readline():
        number += 1
        record = read_record(line) if line.endswith(b"\n") else None
        if record is None:
            if stream.read(1):
                raise UsageError(
                    f"{shown}: line {number} is not a record that llmcli run has written",
                    fix="take it out, or give -o another name",
                )
            return
        yield record, line


class FinishedLines:
    """The lines that have their record. Memory stays bounded for any number of them.

    Attributes:
        num_records: how many there are.
        num_bytes: of their records.
        changed: the first line of the input that is not what was answered under its name, in words.
        failures: kind of failure -> number of records.
        num_met: lines of the input that `meet` has found among them.
        num_dropped: failed records that do not count, so that their lines run again.
    """

    def __init__(self) -> None:
        self.num_records = 0
        self.num_dropped = 0
        self.num_bytes = 0
        self.failures: Counter[str] = Counter()
        self._digests = SpillingMap()
        self.num_met = 0
        self._num_names = 0
        self.changed: str | None = None

    @classmethod
    def read(cls, stream: BinaryIO, shown: str, *, drop_failed: bool = False) -> Self:
        """Take in a results file; failed records are only counted as dropped if they are to be.

        Errors as of `read_records`.
        """
        finished = cls()
        for record, line in read_records(stream, shown):
            if drop_failed and record.failure is not None:
                finished.num_dropped += 1
            else:
                finished.add(record, len(line))
        return finished

    def add(self, record: FinishedRecord, num_bytes: int) -> None:
        """Count one record."""
        self.num_records += 1
        self.num_bytes += num_bytes
        if record.failure is not None:
            self.failures[record.failure] += 1
        self._num_names += record.key.name not in self
        self._digests.set(record.key.name, record.key.digest)

    def __contains__(self, name: str) -> bool:
        return self._digests.get(name) is not None

    def meet(self, key: LineKey, place: str) -> None:
        """Compare a line of the input with the one that was answered under its name, if any was."""
        digest = self._digests.get(key.name)
        if digest is None or digest == _MET:
            return
        if digest != key.digest and self.changed is None:
            self.changed = f"{place} has another content than when it was answered, under id {key.name[1:]}"
        self.num_met += 1
        self._digests.set(key.name, _MET)

    @property
    def num_missing(self) -> int:
        """How many of the lines the input has not, once all of it was met."""
        return self._num_names - self.num_met

    def is_missing(self, name: str) -> bool:
        """Whether this line is finished and was not met."""
        return self._digests.get(name) not in (None, _MET)


class ResultFile:
    """The results of a run that go to a file: locked from here on if it exists, and created by `open`.

    Args:
        path: as given with -o.
        mode: "overwrite" keeps the old results until `open`, "resume" reads them.
        retry_errors: failed records are taken out, so that their lines run again.

    Raises:
        OutputError: another process writes to it, or it can not be opened.
        UsageError: it can not be gone on with.
    """

    def __init__(self, path: str, mode: Mode, *, retry_errors: bool = False, disk: Disk = _DISK) -> None:
        self.path = path
        self._retry_errors = retry_errors
        self.finished = FinishedLines()
        self.settings: Mapping[str, Any] | None = None
        self._disk = disk
        self._stream: BinaryIO | None = None
        if mode == "new" or not os.path.exists(path):
            return
        self._stream = self._lock(create=False)
        try:
            if mode == "resume" and os.path.getsize(path):
                self._read()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def check(self, source: str) -> None:
        """After the whole input was met: refuse to go on if finished lines are not what they were.

        Raises:
            UsageError: names the first line that has changed or is gone.
        """
        finished = self.finished
        why = finished.changed
        if why is None and finished.num_missing and self._stream is not None:
            with _reader(self._stream) as reader:
                records = read_records(reader, quote(self.path))
                gone = (record.shown for record, _ in records if finished.is_missing(record.key.name))
                first = next((shown for shown in gone), "")
            why = f"{finished.num_missing} lines that are answered there are not in the input, first {first}"
        if why is not None:
            raise UsageError(
                f"{quote(self.path)} has results of other lines than {quote(source)} has",
                why=quote(why, 400),
                fix="give the same input (lines may be added), --force to go on regardless, or --overwrite",
            )

    def open(self, settings: Mapping[str, Any]) -> RecordWriter:
        """Begin to write: cut off what is torn, or all of it, and put the manifest beside it.

        Raises:
            OutputError: it can not be created or written.
        """
        if self._stream is None:
            self._stream = self._lock(create=True)
        if self.finished.num_dropped:
            self._stream = self._without_failed(self._stream)
        # Emptied before the manifest is replaced: an empty file fits any manifest, old results do not.
        writer = RecordWriter(
            self._stream, self.path, owned=True, num_bytes=self.finished.num_bytes, disk=self._disk
        )
        write_manifest(self.path, settings, self._disk)
        return writer

    def _lock(self, *, create: bool) -> BinaryIO:
        try:
            stream = open_locked(self.path, create=create)
        except OSError as error:
            raise OutputError(f"can not open {quote(self.path)}: {error.strerror}") from None
        if stream is None:
            pid = (read_manifest(self.path) or {}).get("pid")
            by = f" by process {quote(pid, 20)}" if pid is not None else ""
            raise OutputError(
                f"{quote(self.path)} is being written{by}",
                fix="wait for that run or stop it, or give -o another name",
            )
        return stream

    def _read(self) -> None:
        assert self._stream is not None
        self.settings = read_manifest(self.path)
        if self.settings is None:
            raise UsageError(
                f"{quote(self.path)} can not be gone on with: {quote(str(manifest_path(self.path)))} is missing",
                why="it tells what the results were made with",
                fix="give -o another name, or --overwrite to replace it",
            )
        with _reader(self._stream) as reader:
            self.finished = FinishedLines.read(reader, quote(self.path), drop_failed=self._retry_errors)

    def _without_failed(self, stream: BinaryIO) -> BinaryIO:
        """The other records, copied as they are into a new file that takes the old one's place in one stroke."""
        target = Path(os.path.realpath(self.path))
        new = target.with_name(target.name + ".tmp")
        with contextlib.suppress(FileNotFoundError):
            new.unlink()  # left by a run that was killed here
        copy: BinaryIO | None = None
        try:
            copy = open_locked(str(new), create=True)
            assert copy is not None, "nobody else can know the new file"
            with _reader(stream) as reader:
                for record, line in read_records(reader, quote(self.path)):
                    if record.failure is None:
                        write_all(self._disk, copy, line)
            self._disk.sync(copy)
            self._disk.replace(new, target)
        except BaseException as error:
            if copy is not None:
                copy.close()
            if not isinstance(error, OSError):
                raise
            with contextlib.suppress(OSError):
                new.unlink()
            raise OutputError(f"can not write {quote(str(new))}: {error.strerror}") from None
        stream.close()
        return copy


def _reader(stream: BinaryIO) -> BinaryIO:
    """A buffered reader of a file without buffer, whose closing leaves that open and locked."""
    return open(os.dup(stream.fileno()), "rb")
