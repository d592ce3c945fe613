"""The output of a batch: checked before any work is done, then appended to, one whole record at a time.

A record is written and flushed as soon as it is there, and what a failed write left of one is cut off
again, so that a file always ends at a whole line. A file that is written is locked: a second run on it is
refused. Knows nothing of what the records say. `cli/run.py` checks, `batch/resume.py` opens, `batch.py` writes.
"""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal, Self, cast

from llmcli.errors import OutputError, UsageError, quote
from llmcli.jobs.disk import Disk, write_all

Mode = Literal["new", "overwrite", "resume"]

STDOUT = "-"
SYNC_RECORDS = 32
SYNC_INTERVAL_S = 0.2
_DISK = Disk()


def check_output(
    name: str, source: os.stat_result | None, *, mode: Mode, stdout: os.stat_result | None = None
) -> None:
    """Refuse an output that can not or should not be written, without touching it.

    Args:
        name: path of the output, or "-".
        source: what the input is, as far as it is known.
        mode: whether an existing file is an error, replaced or gone on with.
        stdout: what standard output is, as far as it is known.

    Raises:
        UsageError: says which path and what to type.
    """
    if name == STDOUT:
        if mode != "new":
            raise UsageError(f"--{mode} needs a file to write to", fix="give one: -o results.jsonl")
        if source is not None and stdout is not None and stat.S_ISREG(stdout.st_mode):
            _refuse_same(source, stdout, "standard output")
        return
    shown = quote(name)
    try:
        status = os.stat(name)
    except FileNotFoundError:
        _check_folder(Path(name))
        return
    except (OSError, ValueError) as error:
        raise UsageError(f"can not write {shown}: {getattr(error, 'strerror', None) or error}") from None
    if source is not None and stat.S_ISREG(status.st_mode):
        _refuse_same(source, status, shown)
    if stat.S_ISDIR(status.st_mode):
        raise UsageError(
            f"{shown} is a folder",
            fix=f"give -o a file, for example {quote(os.path.join(name, 'out.jsonl'))}",
        )
    if stat.S_ISREG(status.st_mode) and mode == "new":
        raise UsageError(
            f"{shown} exists",
            fix="--resume goes on where an earlier run stopped, --overwrite replaces it; or give -o another name",
        )
    if mode == "resume" and not stat.S_ISREG(status.st_mode):
        raise UsageError(f"--resume needs a file, and {shown} is none", fix="leave --resume out")
    if not os.access(name, os.W_OK):
        raise UsageError(f"{shown} is not writable")


def _refuse_same(source: os.stat_result, status: os.stat_result, shown: str) -> None:
    """Compare the files themselves, so that links are seen through."""
    if os.path.samestat(source, status):
        raise UsageError(f"{shown} is the input file: it would be overwritten", fix="give -o another name")


def _check_folder(path: Path) -> None:
    if path.is_symlink():
        raise UsageError(
            f"{quote(str(path))} is a link to a file that does not exist", fix="give -o another name"
        )
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"no such folder: {quote(str(folder))}", fix=f"mkdir -p {quote(str(folder))}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder {quote(str(folder))} is not writable", fix="give -o a path elsewhere")


def open_locked(path: str, *, create: bool) -> BinaryIO | None:
    """Open a file for reading and writing, without a buffer, that no other process has open this way.

    Args:
        create: make the file, which must not be there; else it must.

    Returns:
        The open file, locked until it is closed, whatever ends the process; None when another one has it.

    Raises:
        OSError: it can not be opened.
    """
    while True:
        stream = cast(BinaryIO, open(path, "x+b" if create else "r+b", buffering=0))  # noqa: SIM115
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # While it was being locked, its last owner may have put another file in its place.
            if os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):
                return stream
            stream.close()
        except BlockingIOError:
            stream.close()
            return None
        except BaseException:
            stream.close()
            raise


class RecordWriter:
    """Appends records to a stream and keeps count of the bytes that are whole records.

    Args:
        stream: a file opened without buffer, or a buffered stream such as stdout.
        name: for messages.
        owned: whether `close` closes the stream.
        num_bytes: of the whole records that are there already; what follows them is cut off.
        clock: seconds, monotonic.

    Raises:
        OutputError: the file can not be cut.
    """

    def __init__(
        self,
        stream: BinaryIO,
        name: str,
        *,
        owned: bool = False,
        num_bytes: int = 0,
        disk: Disk = _DISK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._stream = stream
        self._owned = owned
        self._disk = disk
        self._clock = clock
        self._is_file = owned and stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
        self._num_bytes = num_bytes
        self._num_unsynced = 0
        self._synced_at = clock()
        if self._is_file:
            try:
                disk.truncate(stream, num_bytes)
            except OSError as error:
                raise self._failure(error) from None

    @classmethod
    def to_stream(cls, name: str, stdout: BinaryIO) -> Self:
        """Write to `stdout` for "-", or to a device or pipe called `name`.

        Raises:
            OutputError: it can not be opened.
        """
        if name == STDOUT:
            return cls(stdout, "standard output")
        try:
            return cls(cast(BinaryIO, open(name, "wb", buffering=0)), name, owned=True)
        except OSError as error:
            raise OutputError(f"can not open {quote(name)}: {error.strerror}") from None

    def write(self, record: bytes) -> None:
        """Append one record and flush it.

        Raises:
            OutputError: disk full or the like; of this record nothing is left in a file.
            BrokenPipeError: the reader of a pipe is gone.
        """
        try:
            write_all(self._disk, self._stream, record)
            self._stream.flush()
            self._num_unsynced += 1
            self._sync_if_due()
        except BaseException as error:
            self._cut_back()
            if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
                raise
            raise self._failure(error, len(record)) from None
        self._num_bytes += len(record)

    def sync_if_due(self) -> None:
        """Make the records safe from a power failure, every 32 of them or 200 ms.

        Raises:
            OutputError: the disk failed.
        """
        try:
            self._sync_if_due()
        except OSError as error:
            raise self._failure(error) from None

    def _sync_if_due(self) -> None:
        due = self._num_unsynced >= SYNC_RECORDS or self._clock() - self._synced_at >= SYNC_INTERVAL_S
        if self._num_unsynced and due:
            self._sync()

    def close(self) -> None:
        """Sync and close a file; a stream that was handed in stays open."""
        if not self._owned:
            return
        try:
            if self._num_unsynced:
                self._sync()
        except OSError as error:
            raise self._failure(error) from None
        finally:
            self._stream.close()

    def _sync(self) -> None:
        if self._is_file:
            self._disk.sync(self._stream)
        self._num_unsynced = 0
        self._synced_at = self._clock()

    def _cut_back(self) -> None:
        if self._is_file:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                self._disk.truncate(self._stream, self._num_bytes)

    def _failure(self, error: OSError, num_bytes: int = 0) -> OutputError:
        return OutputError(
            f"can not write to {quote(self.name)}: {error.strerror}",
            why=f"{num_bytes} bytes were to follow the {self._num_bytes} of the whole records there"
            if num_bytes
            else "",
        )


class OrderedRecords:
    """Holds records back until all before them are there. The caller bounds their number."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._held: dict[int, bytes] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, place: int, record: bytes) -> None:
        """Write the record at `place`, counted from 0, now or once its turn has come."""
        self._held[place] = record
        while self._next in self._held:
            self._write(self._held.pop(self._next))
            self._next += 1
