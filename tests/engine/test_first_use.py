"""Compiling kernels is told where it takes time, while it takes it, and not at all where it does not."""

import threading
from pathlib import Path

from llmcli.engine.first_use import compile_kernels, from_home
from llmcli.scheduler.step import SequenceSlice, Step

STEPS = [Step((SequenceSlice(0, 0, (0,) * count, (0,)),)) for count in (1, 2, 3)]
WHERE = "NVIDIA H200 (first use; kept in ~/.triton/cache)"


def test_every_step_runs_once_in_order_and_silence_is_kept_where_it_is_fast() -> None:
    ran: list[Step] = []
    lines: list[str] = []
    compile_kernels(ran.append, STEPS, WHERE, lines.append, silent_s=600)
    assert (ran, lines) == (STEPS, [])


def test_a_long_compilation_tells_how_far_it_is_and_how_long_it_took() -> None:
    told = threading.Event()
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        told.set()

    compile_kernels(lambda step: told.wait(60), STEPS, WHERE, report, silent_s=0, progress_s=600)
    first, last = lines
    assert first == f"preparing kernels for {WHERE}: 0 of 3 kinds of step"
    assert last.startswith("kernels ready in ")


def test_a_step_that_fails_ends_the_telling() -> None:
    def fail(step: Step) -> None:
        raise RuntimeError("no")

    before = threading.active_count()
    try:
        compile_kernels(fail, STEPS, WHERE, print)
    except RuntimeError:
        assert threading.active_count() == before
    else:
        raise AssertionError("the error was swallowed")


def test_a_folder_is_named_as_people_write_it() -> None:
    assert from_home(Path.home() / ".triton" / "cache") == "~/.triton/cache"
    assert from_home(Path("/scratch/triton")) == "/scratch/triton"
