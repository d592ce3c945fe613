"""Tells people that kernels are being compiled, and how far that is, where it takes long enough to be noticed.

Owns the clock and the words; what is run is the caller's. Called by `engine/build.py`.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llmcli.scheduler.step import Step

SILENT_S = 1.0  # kernels that are all in Triton's cache are loaded faster than this
PROGRESS_S = 2.0


def compile_kernels(
    run: Callable[[Step], object],
    steps: Sequence[Step],
    where: str,
    report: Callable[[str], None],
    *,
    silent_s: float = SILENT_S,
    progress_s: float = PROGRESS_S,
) -> None:
    """Run each kind of step once.

    Args:
        where: the GPU's name, and where its kernels are kept.
        report: gets one line after silent_s and one every progress_s from then on, from another thread; and one at
            the end, if there was any.
    """
    done = 0
    # The first step compiles most of the kernels, so that only a clock of its own can tell in time.
    with _telling(
        lambda: report(f"preparing kernels for {where}: {done} of {len(steps)} kinds of step"),
        silent_s,
        progress_s,
    ):
        started = time.monotonic()
        for step in steps:
            run(step)
            done += 1
        elapsed = time.monotonic() - started
    if elapsed >= silent_s:
        report(f"kernels ready in {elapsed:.1f} s")


@contextmanager
def _telling(tell: Callable[[], None], first_s: float, then_s: float) -> Iterator[None]:
    """Call `tell` from a thread after first_s, and every then_s from then on."""
    over = threading.Event()

    def run() -> None:
        pause = first_s
        while not over.wait(pause):
            tell()
            pause = then_s

    thread = threading.Thread(target=run, name="llmcli-compile-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def from_home(folder: Path) -> str:
    """A path as people write it: ~/.triton/cache."""
    home = Path.home()
    return str(Path("~") / folder.relative_to(home)) if folder.is_relative_to(home) else str(folder)
