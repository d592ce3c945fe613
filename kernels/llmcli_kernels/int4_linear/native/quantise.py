"""Activations as int8, and the kernel that makes them.

x is held as q * a with q = rint(127 x / peak), a = peak / 127 and peak = max |x| over ACTIVATION_GROUP neighbouring k.
A group with an inf or NaN has q = 0 and that a, which makes its whole row of a product NaN.
"""

from dataclasses import dataclass

import torch
from llvmlite import ir
from torch import Tensor

from llmcli_kernels.int4_linear.native.records import GROUP
from llmcli_kernels.native.emit import F32, I8, I32, Emit, Value, const, splat
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import Stage, function, pieces_function, word, words
from llmcli_kernels.native.machine import Machine

ITEMS_PER_PIECE = 64  # (row, group) pairs; fewer are not worth sharing out
FLOAT_INF_BITS = 0x7F800000
SMALLEST_PEAK_BITS = (127 - 100) << 23  # 2**-100: a group of zeros must not divide by zero

X, Q, SCALES, SUMS, ROWS_AT, GROUPS = range(6)  # words


@dataclass(frozen=True, eq=False)
class Quantised:
    """Room for the activations of a product, up to some number of rows.

    Attributes:
        q: int8 [K / 128, rows, 128], for as many rows as a product has.
        scales: float32 [K / 128, rows, 128 / activation group]: the a above.
        sums: int32, like scales: minus the sum of q.
        activation_group: k that share a scale.
    """

    q: Tensor
    scales: Tensor
    sums: Tensor
    activation_group: int

    @classmethod
    def room(cls, rows: int, k: int, activation_group: int) -> "Quantised":
        parts = rows * k // activation_group
        return cls(
            torch.empty(rows * k, dtype=torch.int8),
            torch.empty(parts, dtype=torch.float32),
            torch.empty(parts, dtype=torch.int32),
            activation_group,
        )


def quantise_stage(host: Host, x: int, quantised: Quantised, rows_at: int, k: int) -> Stage:
    """bfloat16 rows at address x, [rows, k] contiguous, to `quantised`; the number of rows is at an address."""
    group = quantised.activation_group
    compiled = host.compile(f"quantise {group}", lambda module, machine: emit(module, machine, group))
    args = words(
        x,
        quantised.q.data_ptr(),
        quantised.scales.data_ptr(),
        quantised.sums.data_ptr(),
        rows_at,
        k // GROUP,
    )
    return Stage(compiled.kernel("quantise"), args)


def emit(module: ir.Module, machine: Machine, activation_group: int) -> None:
    """The kernel "quantise": pieces of ITEMS_PER_PIECE (row, group) pairs in the order of Q."""

    def count(e: Emit, args: Value) -> Value:
        items = e.b.mul(_rows(e, args), word(e, args, GROUPS))
        return e.b.sdiv(e.b.add(items, const(ITEMS_PER_PIECE - 1)), const(ITEMS_PER_PIECE))

    pieces_function(module, "quantise", count)
    item_bytes = 4 * GROUP // activation_group
    with function(module, "quantise", 2) as (e, (args, piece)):
        b = e.b
        x, q, scales, sums = (word(e, args, i) for i in (X, Q, SCALES, SUMS))
        rows, groups = _rows(e, args), word(e, args, GROUPS)
        first = b.mul(piece, const(ITEMS_PER_PIECE))
        with e.each(first, e.smaller(b.add(first, const(ITEMS_PER_PIECE)), b.mul(rows, groups))) as item:
            row, group = b.srem(item, rows), b.sdiv(item, rows)
            _quantise(
                e,
                machine.lanes,
                activation_group,
                b.add(x, b.mul(b.add(b.mul(row, groups), group), const(2 * GROUP))),
                b.add(q, b.mul(item, const(GROUP))),
                b.add(scales, b.mul(item, const(item_bytes))),
                b.add(sums, b.mul(item, const(item_bytes))),
            )


def _rows(e: Emit, args: Value) -> Value:
    return word(e, word(e, args, ROWS_AT), 0)


def _quantise(
    e: Emit, lanes: int, activation_group: int, x: Value, q: Value, scales: Value, sums: Value
) -> None:
    """128 bfloat16 at x -> int8 at q, and for each activation group its scale and minus the sum of its q."""
    b, ints, floats = e.b, ir.VectorType(I32, lanes), ir.VectorType(F32, lanes)
    for part in range(GROUP // activation_group):
        starts = range(part * activation_group, (part + 1) * activation_group, lanes)
        bits = [b.bitcast(e.load_floats("bf16", e.at(x, 2 * k), lanes), ints) for k in starts]
        # Magnitudes compare as integers, where a NaN is larger than all numbers and is not lost.
        sizes = [b.and_(value, splat(I32, 0x7FFFFFFF, lanes)) for value in bits]
        size = e.pairwise(lambda one, two: e.call(f"llvm.umax.v{lanes}i32", ints, one, two), sizes)
        peak = e.call(f"llvm.vector.reduce.umax.v{lanes}i32", I32, size)
        finite = b.icmp_unsigned("<", peak, ir.Constant(I32, FLOAT_INF_BITS))
        mask = e.broadcast(b.sext(finite, I32), lanes)
        peak = b.bitcast(e.call("llvm.umax.i32", I32, peak, ir.Constant(I32, SMALLEST_PEAK_BITS)), F32)
        e.store(b.fdiv(peak, ir.Constant(F32, 127.0)), e.at(scales, 4 * part), 4)
        usable = b.select(finite, peak, ir.Constant(F32, 1.0))
        inverse = e.broadcast(b.fdiv(ir.Constant(F32, 127.0), usable), lanes)
        integers = []
        for k, value in zip(starts, bits, strict=True):
            scaled = b.fmul(b.bitcast(b.and_(value, mask), floats), inverse)
            integers.append(b.fptosi(e.call(f"llvm.rint.v{lanes}f32", floats, scaled), ints))
            e.store(b.trunc(integers[-1], ir.VectorType(I8, lanes)), e.at(q, k), 8)
        total = e.call(f"llvm.vector.reduce.add.v{lanes}i32", I32, e.pairwise(b.add, integers))
        e.store(b.neg(total), e.at(sums, 4 * part), 4)
