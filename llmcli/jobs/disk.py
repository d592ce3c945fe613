"""The calls that change what is on a disk, in one place, so that a test can make each of them fail or be the last.

Knows no format. `batch/output.py` and `batch/manifest.py` write through it.
"""

import errno
import os
from pathlib import Path
from typing import BinaryIO


class Disk:
    """The disk itself. Every method may raise OSError."""

    def write(self, stream: BinaryIO, data: memoryview) -> int:
        """Write some of `data`; how many bytes it were."""
        return stream.write(data)

    def sync(self, stream: BinaryIO) -> None:
        """Wait until what was written would survive a power failure."""
        os.fsync(stream.fileno())

    def truncate(self, stream: BinaryIO, num_bytes: int) -> None:
        """Cut a file to its first bytes and go on writing there."""
        os.ftruncate(stream.fileno(), num_bytes)
        stream.seek(num_bytes)

    def replace(self, new: Path, old: Path) -> None:
        """Put one file in the place of another, in one stroke that survives a power failure."""
        os.replace(new, old)
        folder = os.open(old.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_all(disk: Disk, stream: BinaryIO, data: bytes) -> None:
    """Write all of `data`, in as many pieces as it takes.

    Raises:
        OSError: some of it could not be written; others of it may have been.
    """
    rest = memoryview(data)
    while rest:
        written = disk.write(stream, rest)
        if not written:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        rest = rest[written:]
