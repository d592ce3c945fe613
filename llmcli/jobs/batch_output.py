"""The output of a batch: checked before any work is done, then appended to, one whole record at a time.

A record is written and flushed as soon as it is there, and what a failed write left of one is cut off
again, so that a file always ends at a whole line. Knows nothing of what the records say. `cli/run.py`
checks and opens, `batch.py` writes.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Self, cast

from llmcli.errors import OutputError, UsageError, quote

STDOUT = "-"
SYNC_INTERVAL_S = 5.0


def check_output(
    name: str, source: os.stat_result | None, *, overwrite: bool, stdout: os.stat_result | None = None
) -> None:
    """Refuse an output that can not or should not be written, without touching it.

    Args:
        name: path of the output, or "-".
        source: what the input is, as far as it is known.
        overwrite: whether an existing file may be replaced.
        stdout: what standard output is, as far as it is known.

    Raises:
        UsageError: says which path and what to type.
    """
    if name == STDOUT:
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
    if stat.S_ISREG(status.st_mode) and not overwrite:
        raise UsageError(f"{shown} exists", fix="give -o another name, or --overwrite to replace it")
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


class RecordWriter:
    """Appends records to a stream and keeps count of the bytes that are whole records.

    Args:
        stream: a file opened without buffer, or a buffered stream such as stdout.
        name: for messages.
        owned: whether `close` closes the stream.
    """

    def __init__(self, stream: BinaryIO, name: str, *, owned: bool = False) -> None:
        self.name = name
        self._stream = stream
        self._owned = owned
        self._is_file = owned and stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
        self._num_bytes = 0
        self._synced_at = time.monotonic()

    @classmethod
    def open(cls, name: str, stdout: BinaryIO, *, overwrite: bool) -> Self:
        """Create the file called `name`, or write to `stdout` for "-".

        Raises:
            OutputError: it can not be created.
        """
        if name == STDOUT:
            return cls(stdout, "standard output")
        device = os.path.exists(name) and not os.path.isfile(name)
        try:
            stream = cast(BinaryIO, open(name, "wb" if overwrite or device else "xb", buffering=0))  # noqa: SIM115
        except OSError as error:
            raise OutputError(f"can not create {quote(name)}: {error.strerror}") from None
        return cls(stream, name, owned=True)

    def write(self, record: bytes) -> None:
        """Append one record and flush it.

        Raises:
            OutputError: disk full or the like; of this record nothing is left in a file.
            BrokenPipeError: the reader of a pipe is gone.
        """
        try:
            self._write_all(record)
            self._sync(SYNC_INTERVAL_S)
        except BaseException as error:
            self._cut_back()
            if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
                raise
            raise OutputError(
                f"can not write to {quote(self.name)}: {error.strerror}",
                why=f"{len(record)} bytes were to follow the {self._num_bytes} of the whole records there",
            ) from None
        self._num_bytes += len(record)

    def close(self) -> None:
        """Sync and close a file; a stream that was handed in stays open."""
        if not self._owned:
            return
        try:
            self._sync(0)
        except OSError as error:
            raise OutputError(f"can not write to {quote(self.name)}: {error.strerror}") from None
        finally:
            self._stream.close()

    def _write_all(self, record: bytes) -> None:
        rest = memoryview(record)
        while rest:
            written = self._stream.write(rest)
            if not written:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            rest = rest[written:]
        self._stream.flush()

    def _sync(self, interval_s: float) -> None:
        now = time.monotonic()
        if self._is_file and now - self._synced_at >= interval_s:
            os.fsync(self._stream.fileno())
            self._synced_at = now

    def _cut_back(self) -> None:
        if self._is_file:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                os.ftruncate(self._stream.fileno(), self._num_bytes)
                self._stream.seek(self._num_bytes)


class OrderedRecords:
    """Holds records back until all before them are there. The caller bounds their number."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._held: dict[int, bytes] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, index: int, record: bytes) -> None:
        """Write record number `index`, now or once its turn has come."""
        self._held[index] = record
        while self._next in self._held:
            self._write(self._held.pop(self._next))
            self._next += 1

    def flush(self) -> None:
        """Write what is held, in order, over the gaps of those that will never come."""
        for index in sorted(self._held):
            self._write(self._held.pop(index))
