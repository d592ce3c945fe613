"""What Ctrl-C does to `llmcli run`: pressed once it asks for a stop, pressed twice it ends the run.

A step of the engine can be a single call into compiled code, and Python runs no signal handler before that is back:
with a large model, seconds later. Presses are therefore read by a thread, from where the system's own handler notes
them (`signal.set_wakeup_fd`). Knows no job; `cli/run_job.py` uses it.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from llmcli.jobs.batch.job import StopSignal

GRACE_S = 0.5  # in which Python may hear of the second press, to leave through every `finally`


class CtrlC:
    """While entered, the first press sets `stop`, and the second raises KeyboardInterrupt.

    Args:
        leave: ends the process. Called by another thread when Python did not get to hear of the second press.
    """

    def __init__(self, stop: "StopSignal", leave: Callable[[], None]) -> None:
        self._stop = stop
        self._leave = leave
        self._num_presses = 0
        self._over = threading.Event()
        self._previous: Any = None

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._count, name="llmcli-ctrl-c", daemon=True)
        self._thread.start()
        self._previous = signal.signal(signal.SIGINT, self._hear)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, self._previous)
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        # Two presses during one long call are heard as one.
        if self._stop.requested or self._num_presses > 1:
            raise KeyboardInterrupt
        self._stop.requested = True

    def _count(self) -> None:
        while self._num_presses < 2:
            noted = os.read(self._reader, 64)  # the number of each signal, as a byte
            if not noted:
                return
            self._num_presses += noted.count(signal.SIGINT)
        if not self._over.wait(GRACE_S):
            self._leave()
