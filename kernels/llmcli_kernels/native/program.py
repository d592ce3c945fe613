"""A program: kernels that all threads work through, one after the other.

A thread takes pieces of a stage until none is left, and goes on when all of them are done. It does not wait for
threads, only for pieces: one that the system does not run, on a machine shared with other programs, holds nobody up
unless it was stopped in the middle of a piece.
"""

import ctypes
import time
from collections.abc import Sequence
from typing import Protocol

import torch
from llvmlite import ir

from llmcli_kernels.native.emit import I64, VOID, Emit, Value, const
from llmcli_kernels.native.kernel import Stage, function, word

STAGES, NUM_STAGES, COUNTERS = range(3)  # words of a program's state
STAGE_WORDS = 3  # addresses: the kernel's two functions, its arguments
COUNTER_BYTES = 64  # a cache line for a stage: pieces taken, pieces done
SPINS = 2048  # looks at a stage that others finish, before each offer to let another process run


class Caller(Protocol):
    """Runs "run" of `emit_run` with a program's state on every thread, and returns when all are back."""

    def call(self, state: int) -> None: ...


class Program:
    """Stages ready to run, any number of times, by one caller at a time."""

    def __init__(self, host: Caller, stages: Sequence[Stage]) -> None:
        self._host = host
        self._given = tuple(stages)  # kept alive
        entries = [word for kernel, args in stages for word in (kernel.pieces, kernel.piece, args.data_ptr())]
        self._stages = torch.tensor(entries, dtype=torch.int64)
        self._counters = torch.zeros(len(stages) * COUNTER_BYTES + COUNTER_BYTES, dtype=torch.uint8)
        first = -self._counters.data_ptr() % COUNTER_BYTES + self._counters.data_ptr()
        self._to_clear = (first, len(stages) * COUNTER_BYTES)
        self._state = torch.tensor([self._stages.data_ptr(), len(stages), first], dtype=torch.int64)

    def run(self) -> None:
        first, size = self._to_clear
        ctypes.memset(first, 0, size)
        self._host.call(self._state.data_ptr())

    def profile(self) -> dict[str, float]:
        """Run once, stage by stage: the seconds of each kernel, what a call costs included."""
        seconds: dict[str, float] = {}
        for stage in self._given:
            alone = Program(self._host, (stage,))
            started = time.perf_counter()
            alone.run()
            name = stage.kernel.name
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
        return seconds


def emit_run(module: ir.Module) -> None:
    """run(state): called by every thread."""
    with function(module, "run", 1) as (e, (state,)):
        stages, counters = word(e, state, STAGES), word(e, state, COUNTERS)
        with e.each(const(0), word(e, state, NUM_STAGES)) as index:
            stage = e.b.add(stages, e.b.mul(index, const(8 * STAGE_WORDS)))
            _run_stage(e, stage, e.b.add(counters, e.b.mul(index, const(COUNTER_BYTES))))


def _run_stage(e: Emit, stage: Value, counter: Value) -> None:
    b = e.b
    count_pieces = b.inttoptr(word(e, stage, 0), ir.FunctionType(I64, [I64]).as_pointer())
    run_piece = b.inttoptr(word(e, stage, 1), ir.FunctionType(VOID, [I64, I64]).as_pointer())
    args = word(e, stage, 2)
    pieces = b.call(count_pieces, [args])
    taken, done = (b.inttoptr(e.at(counter, at), I64.as_pointer()) for at in (0, 8))

    before = b.block
    take, work, empty = e.block("take"), e.block("work"), e.block("empty")
    b.branch(take)
    b.position_at_end(take)
    mine = b.phi(I64)
    mine.add_incoming(const(0), before)
    piece = b.atomic_rmw("add", taken, const(1), "monotonic")
    b.cbranch(b.icmp_signed("<", piece, pieces), work, empty)
    b.position_at_end(work)
    b.call(run_piece, [args, piece])
    mine.add_incoming(b.add(mine, const(1)), b.block)
    b.branch(take)
    b.position_at_end(empty)
    with b.if_then(b.icmp_signed(">", mine, const(0))):
        b.atomic_rmw("add", done, mine, "acq_rel")
    _wait(e, done, pieces)


def _wait(e: Emit, done: Value, pieces: Value) -> None:
    """Until `done` has reached `pieces`."""
    b, before = e.b, e.b.block
    look, spin, end = e.block("look"), e.block("spin"), e.block("done")
    b.branch(look)
    b.position_at_end(look)
    spins = b.phi(I64)
    spins.add_incoming(const(1), before)
    b.cbranch(b.icmp_signed(">=", b.load_atomic(done, "acquire", 8), pieces), end, spin)
    b.position_at_end(spin)
    e.call("llvm.x86.sse2.pause", VOID)
    with b.if_then(b.icmp_signed("==", b.urem(spins, const(SPINS)), const(0))):
        b.call(e.external("sched_yield"), [])
    spins.add_incoming(b.add(spins, const(1)), b.block)
    b.branch(look)
    b.position_at_end(end)
