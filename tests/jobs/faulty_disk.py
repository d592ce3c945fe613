"""Disks on which something goes wrong: the process dies at a chosen moment, or a call fails."""

import errno
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llmcli.jobs.disk import Disk


class Killed(BaseException):
    """Stands for the end of the process: no code of ours catches it, and the disk does nothing any more."""


def die() -> None:
    raise Killed


def die_for_good() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class MortalDisk(Disk):
    """A disk whose process ends after so many ticks: one for each byte that is written and each other call.

    Attributes:
        ticks_left: None is for ever.
        ticks: so many have passed.
    """

    ticks_left: int | None = None
    end: Callable[[], None] = die
    ticks: int = 0

    def write(self, stream: BinaryIO, data: memoryview) -> int:
        if self.ticks_left is None or len(data) <= self.ticks_left:
            self._pass(len(data))
            return super().write(stream, data)
        super().write(stream, data[: self.ticks_left])
        self.ticks_left = 0
        self.end()
        raise AssertionError("the process is dead")

    def sync(self, stream: BinaryIO) -> None:
        self._tick()
        super().sync(stream)

    def truncate(self, stream: BinaryIO, num_bytes: int) -> None:
        self._tick()
        super().truncate(stream, num_bytes)

    def replace(self, new: Path, old: Path) -> None:
        self._tick()
        super().replace(new, old)

    def _tick(self) -> None:
        if self.ticks_left == 0:
            self.end()
        self._pass(1)

    def _pass(self, ticks: int) -> None:
        self.ticks += ticks
        if self.ticks_left is not None:
            self.ticks_left -= ticks


@dataclass
class FailingDisk(Disk):
    """A disk on which one call fails, and the next ones work.

    Attributes:
        calls_left: so many calls work before.
        code: errno of the failure.
        short: the failing call, if it is a write, writes half before.
    """

    calls_left: int
    code: int = errno.ENOSPC
    short: bool = False
    has_failed: bool = False

    def write(self, stream: BinaryIO, data: memoryview) -> int:
        if self.short and self.calls_left == 0:
            super().write(stream, data[: len(data) // 2])
        self._count()
        return super().write(stream, data)

    def sync(self, stream: BinaryIO) -> None:
        self._count()
        super().sync(stream)

    def truncate(self, stream: BinaryIO, num_bytes: int) -> None:
        if not self.has_failed:  # what is done to clean up works
            self._count()
        super().truncate(stream, num_bytes)

    def replace(self, new: Path, old: Path) -> None:
        self._count()
        super().replace(new, old)

    def _count(self) -> None:
        self.calls_left -= 1
        if self.calls_left == -1:
            self.has_failed = True
            raise OSError(self.code, os.strerror(self.code))
