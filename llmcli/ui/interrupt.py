"""What Ctrl-C means: stop the answer that is being written, or, pressed twice at the prompt, leave.

Knows only signals and time; used while an answer streams and by the prompt readers.
"""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

TWICE_S = 1.0


class StopRequest:
    """While entered, the first SIGINT asks for a stop instead of raising KeyboardInterrupt.

    One that comes more than a second after it raises: whatever was asked to stop does not react. Outside
    the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.requested = False
        self._clock = clock
        self._requested_at = 0.0
        self._action: Callable[[], None] | None = None
        self._previous: Any = None
        self._in_main = threading.current_thread() is threading.main_thread()

    def call(self, action: Callable[[], None]) -> None:
        """Set what a request does; called at once when the request came before."""
        self._action = action
        if self.requested:
            action()

    def __enter__(self) -> Self:
        if self._in_main:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._in_main:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and self._clock() - self._requested_at > TWICE_S:
            raise KeyboardInterrupt
        if self.requested:
            return
        self.requested = True
        self._requested_at = self._clock()
        if self._action is not None:
            # The handler interrupts the main thread anywhere, a held lock included; another thread may wait
            # for it.
            threading.Thread(target=self._action, name="llmcli-stop", daemon=True).start()


class DoublePress:
    """Tells whether Ctrl-C was pressed twice within a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None

    def press(self) -> bool:
        """Count a press; True when the one before was less than a second ago."""
        now = self._clock()
        twice = self._last is not None and now - self._last < TWICE_S
        self._last = now
        return twice

    @property
    def armed(self) -> bool:
        """Whether a press now would be the second one."""
        return self._last is not None and self._clock() - self._last < TWICE_S
