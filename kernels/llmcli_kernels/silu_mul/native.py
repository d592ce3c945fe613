"""The gated activation as a native kernel, in float32, rounded once, for widths of whole vectors.

The words:

    X, X_STRIDE         address of [rows, 2 WIDTH], the gate before the up, and bytes from row to row
    OUT                 address of [rows, WIDTH] contiguous
    WIDTH               a multiple of LANES
"""

from collections.abc import Callable

import torch
from llvmlite import ir
from torch import Tensor

from llmcli_kernels.native.emit import F32, Emit, Value, const, splat
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import function, word, words
from llmcli_kernels.native.machine import Machine
from llmcli_kernels.native.math import KINDS, exp
from llmcli_kernels.native.rowwise import RowStage, rowwise

LANES = 16  # of the widest machine

X, X_STRIDE, OUT, WIDTH = range(4)  # words


class NativeSiluMul:
    """The operation; the fallback does what `covers` does not."""

    def __init__(self, host: Host, fallback: Callable[[Tensor], Tensor]) -> None:
        self._host, self._fallback = host, fallback

    def __call__(self, x: Tensor) -> Tensor:
        width = x.shape[1] // 2
        if not covers(x.dtype, width):
            return self._fallback(x)
        out, rows = torch.empty(x.shape[0], width, dtype=x.dtype), words(x.shape[0])
        activation = stage(
            self._host,
            x.dtype,
            x=x.data_ptr(),
            x_stride=x.stride(0) * x.element_size(),
            out=out.data_ptr(),
            width=width,
        )
        self._host.run(rowwise(self._host, rows.data_ptr(), activation))
        return out


def covers(dtype: torch.dtype, width: int) -> bool:
    return dtype in KINDS and width % LANES == 0


def stage(host: Host, dtype: torch.dtype, *, x: int, x_stride: int, out: int, width: int) -> RowStage:
    """One activation; the words are explained above."""
    kind = KINDS[dtype]
    compiled = host.compile(f"silu_mul {kind}", lambda module, machine: emit(module, machine, kind))
    return RowStage("silu_mul", compiled.address("silu_mul"), words(x, x_stride, out, width))


def emit(module: ir.Module, machine: Machine, kind: str) -> None:
    """The function "silu_mul" (args, row) for one dtype."""
    itemsize = 4 if kind == "fp32" else 2
    with function(module, "silu_mul", 2) as (e, (args, row)):
        b, width = e.b, word(e, args, WIDTH)
        row_bytes = b.mul(width, const(itemsize))
        gates = b.add(word(e, args, X), b.mul(row, word(e, args, X_STRIDE)))
        out = b.add(word(e, args, OUT), b.mul(row, row_bytes))
        with e.each(const(0), width, machine.lanes) as i:
            at = b.mul(i, const(itemsize))
            gate, up = (
                e.load_floats(kind, b.add(start, at), machine.lanes)
                for start in (gates, b.add(gates, row_bytes))
            )
            e.store_floats(kind, _silu_mul(e, gate, up), b.add(out, at))


def _silu_mul(e: Emit, gate: Value, up: Value) -> Value:
    """gate / (1 + e^-gate) · up: a large negative gate is divided by infinity."""
    b = e.b
    divisor = b.fadd(splat(F32, 1.0, gate.type.count), exp(e, b.fneg(gate)))
    return b.fmul(b.fdiv(gate, divisor), up)
