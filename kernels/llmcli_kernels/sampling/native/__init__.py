"""Sampling as one native kernel, for all rows: no row and no parameter goes to another implementation.

Owns the operation and the memory that it works in. `row` has what is done with a row, `borders` the filters, `passes`
the vector code; README.md of the operation has the maths.
"""

import ctypes
import threading

import torch
from llvmlite import ir
from torch import Tensor

from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import Stage, words
from llmcli_kernels.native.machine import Machine
from llmcli_kernels.native.program import Program
from llmcli_kernels.sampling import SamplingBatch
from llmcli_kernels.sampling.native.borders import emit_borders
from llmcli_kernels.sampling.native.passes import emit_passes
from llmcli_kernels.sampling.native.row import emit_sample
from llmcli_kernels.sampling.native.slot import array_bytes, slot_bytes

SLOTS_PER_THREAD = 4  # more slots share rows more evenly, and are more memory


class NativeSample:
    """The operation. Calls are one at a time: they share words, and memory that grows with what was asked for."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._rows = ctypes.c_int64(0)
        self._rows_at = ctypes.addressof(self._rows)
        self._program: Program | None = None
        self._args: ctypes.Array[ctypes.c_int64]  # of the program's only stage

    def __call__(self, logits: Tensor, params: SamplingBatch) -> tuple[Tensor, Tensor]:
        rows, vocabulary = logits.shape
        ids, finite = torch.empty(rows, dtype=torch.int64), torch.empty(rows, dtype=torch.bool)
        uniforms = params.uniforms
        if uniforms.dtype != torch.float64:
            uniforms = uniforms.double()
        parameters = (params.temperature, params.top_k, params.top_p, params.min_p, uniforms)
        arrays = (logits, ids, finite, *(parameter.contiguous() for parameter in parameters))
        addresses = tuple(array.data_ptr() for array in arrays)
        with self._lock:
            self._rows.value = rows
            slots, memory = self._room(rows, vocabulary)
            program = self._program or self._make_program()
            self._args[:] = _words(addresses, self._rows_at, vocabulary, memory, slots)
            program.run()
        return ids, finite

    def _make_program(self) -> Program:
        only = stage(self._host, (0,) * 8, self._rows_at, 1, 0, 1)
        self._args = (ctypes.c_int64 * len(only.args)).from_address(only.args.data_ptr())
        self._program = Program(self._host, (only,))
        return self._program

    def _room(self, rows: int, vocabulary: int) -> tuple[int, int]:
        """How many slots there are, and the address of the first."""
        slots = max(1, min(rows, SLOTS_PER_THREAD * self._host.team.num_threads()))
        if self._memory.numel() < slots * slot_bytes(vocabulary):
            self._memory = torch.empty(slots * slot_bytes(vocabulary), dtype=torch.uint8)
        return slots, self._memory.data_ptr()


def stage(
    host: Host, addresses: tuple[int, ...], rows_at: int, vocabulary: int, memory: int, slots: int
) -> Stage:
    """One draw for each row; the words are explained in `row`, `addresses` are the first eight."""
    compiled = host.compile("sample", emit)
    return Stage(compiled.kernel("sample"), words(*_words(addresses, rows_at, vocabulary, memory, slots)))


def _words(
    addresses: tuple[int, ...], rows_at: int, vocabulary: int, memory: int, slots: int
) -> tuple[int, ...]:
    sizes = (slot_bytes(vocabulary), array_bytes(vocabulary))
    return (*addresses, rows_at, vocabulary, memory, slots, *sizes)


def emit(module: ir.Module, _: Machine) -> None:
    """The kernel "sample"."""
    emit_passes(module)
    emit_borders(module)
    emit_sample(module)
