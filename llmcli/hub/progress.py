"""How far a download is: bars on a terminal, a plain line now and then elsewhere.

One bar for the whole, one for each file that is under way, with speed and time left. Knows nothing of where the
bytes come from; `hub/fetching.py` tells it, from several threads.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from llmcli.config import human_bytes

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

MIN_BYTES = 1 << 20  # less than this is there before anybody could read of it
LINE_EVERY_S = 10.0


class DownloadProgress:
    """One download, from `with` to its end.

    Args:
        title: what is fetched.
        total: bytes of the files that are to come.
        have: bytes of them that are here already.
        say: prints one line; also used for notices while bars are drawn.
        shown: False for silence.
        clock: seconds, from any point on.
    """

    def __init__(
        self,
        title: str,
        total: int,
        have: int,
        say: Callable[[str], None],
        *,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._total, self._have, self._arrived = title, total, have, 0
        self._tell, self._clock = say, clock
        self._shown = shown and total - have >= MIN_BYTES
        self._lock = threading.Lock()
        self._bars: Progress | None = None
        self._whole: TaskID | None = None
        self._started = self._told = 0.0

    def __enter__(self) -> "DownloadProgress":
        self._started = self._told = self._clock()
        if self._shown and sys.stderr.isatty():
            self._bars = _bars()
        if self._bars is not None:
            self._bars.start()
            self._whole = self._bars.add_task(self._title, total=self._total, completed=self._have)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
        if self._shown and kind is None:
            seconds = max(self._clock() - self._started, 1e-3)
            rate = human_bytes(self._arrived / seconds)
            self._tell(f"fetched {human_bytes(self._arrived)} in {_duration(seconds)} ({rate}/s)")

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        if self._bars is None:
            self._tell(line)
        else:
            self._bars.console.print(line)

    @contextlib.contextmanager
    def file(self, name: str, size: int, have: int) -> Iterator[Callable[[int], None]]:
        """A bar of its own for a file; gives the function that is told how many bytes came in."""
        task = None if self._bars is None else self._bars.add_task(name, total=size, completed=have)

        def on_bytes(count: int) -> None:
            self._advance(count)
            if self._bars is not None and task is not None:
                self._bars.update(task, advance=count)

        try:
            yield on_bytes
        finally:
            if self._bars is not None and task is not None:
                self._bars.remove_task(task)

    def _advance(self, count: int) -> None:
        """Bytes are negative when some are dropped and come again."""
        with self._lock:
            self._arrived += count
            line = self._line_due()
        if self._bars is not None and self._whole is not None:
            self._bars.update(self._whole, advance=count)
        elif line:
            self._tell(line)

    def _line_due(self) -> str:
        """What to say now, or nothing; bars need no lines."""
        now = self._clock()
        if not self._shown or self._bars is not None or now - self._told < LINE_EVERY_S:
            return ""
        self._told = now
        here, seconds = self._have + self._arrived, max(now - self._started, 1e-3)
        rate = self._arrived / seconds
        left = f", {_duration((self._total - here) / rate)} left" if rate > 0 else ""
        return (
            f"{self._title}: {human_bytes(here)} of {human_bytes(self._total)}"
            f" ({100 * here // max(self._total, 1)}%), {human_bytes(rate)}/s{left}"
        )


def _bars() -> "Progress | None":
    """Rich's bars on stderr; None on a terminal that can not move its cursor.

    They leave the last columns free: where a line is full, the ^C of the terminal would push the screen out of step.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Speed(ProgressColumn):
        """In the units of all other sizes here."""

        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{human_bytes(task.speed)}/s")

    console = Console(file=sys.stderr, markup=False, emoji=False, highlight=False)
    if console.is_dumb_terminal:
        return None
    name = Column(max_width=22, no_wrap=True, overflow="ellipsis")
    columns: list[Any] = [
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(bar_width=16),
        DownloadColumn(binary_units=True),
        Speed(),
        TimeRemainingColumn(compact=True),
    ]
    return Progress(*columns, console=console, transient=True)


def _duration(seconds: float) -> str:
    """8 s, 4:07 or 1:02:03."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
