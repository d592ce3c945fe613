"""Activations as int8, but for the few that are far larger than the rest, and the kernel that makes them.

x is held as q * a with q = rint(127 x / peak), a = peak / 127 and peak = max |x| over ACTIVATION_GROUP neighbouring k.
One large x would leave its neighbours few steps, so those above OUTLIER times the mean |x| of their row count as 0
there and stand beside, in float32 (LLM.int8, Dettmers et al., arXiv 2208.07339). A record keeps MOST_OUTLIERS at most;
where a row has more in one, they are no exception but the rule there, and are quantised.

A group with an inf or NaN has q = 0 and that a, which makes its whole row of a product NaN.
"""

from dataclasses import dataclass

import torch
from llvmlite import ir
from torch import Tensor

from llmcli_kernels.int4_linear.native.records import GROUP
from llmcli_kernels.native.emit import F32, I1, I8, I32, I64, Emit, Value, const, splat
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import function, word, words
from llmcli_kernels.native.machine import Machine
from llmcli_kernels.native.math import sum_lanes
from llmcli_kernels.native.rowwise import RowStage

OUTLIER = 8.0  # times the mean: 6.4 standard deviations of normal numbers, one in 10^10
# Half of it takes an eighth longer at 8 rows and more, and has a tenth less error.
ACTIVATION_GROUP = 128
MOST_OUTLIERS = 7
OUTLIER_WORDS = 16  # int32 of a (row, record): their number, nothing, then pairs of k and x
FLOAT_INF_BITS = 0x7F800000
SMALLEST_PEAK_BITS = (127 - 100) << 23  # 2**-100: a group of zeros must not divide by zero

X, Q, SCALES, SUMS, OUTLIERS, ROWS_AT, GROUPS = range(7)  # words; ROWS_AT the address of the number of rows


@dataclass(frozen=True, eq=False)
class Quantised:
    """Room for the activations of a product, up to some number of rows.

    Attributes:
        q: int8 [K / 128, rows, 128], for as many rows as a product has.
        scales: float32 [K / 128, rows, 128 / activation group]: the a above.
        sums: int32, like scales: minus the sum of q.
        outliers: int32 [K / 128, rows, OUTLIER_WORDS].
        activation_group: k that share a scale.
    """

    q: Tensor
    scales: Tensor
    sums: Tensor
    outliers: Tensor
    activation_group: int

    @classmethod
    def room(cls, rows: int, k: int, activation_group: int) -> "Quantised":
        parts = rows * k // activation_group
        return cls(
            torch.empty(rows * k, dtype=torch.int8),
            torch.empty(parts, dtype=torch.float32),
            torch.empty(parts, dtype=torch.int32),
            torch.empty(rows * k // GROUP * OUTLIER_WORDS, dtype=torch.int32),
            activation_group,
        )


def quantise_stage(host: Host, x: int, quantised: Quantised, rows_at: int, k: int) -> RowStage:
    """bfloat16 rows at address x, [rows, k] contiguous, to `quantised`; the number of rows is at an address."""
    group = quantised.activation_group
    compiled = host.compile(f"quantise {group}", lambda module, machine: emit(module, machine, group))
    args = words(
        x,
        quantised.q.data_ptr(),
        quantised.scales.data_ptr(),
        quantised.sums.data_ptr(),
        quantised.outliers.data_ptr(),
        rows_at,
        k // GROUP,
    )
    return RowStage("quantise", compiled.address("quantise"), args)


def emit(module: ir.Module, machine: Machine, activation_group: int) -> None:
    """The function "quantise" (args, row)."""
    with function(module, "quantise", 2) as (e, (args, row)):
        _Row(e, machine.lanes, activation_group, args, row).emit()


class _Row:
    """The body of the function."""

    def __init__(self, e: Emit, lanes: int, activation_group: int, args: Value, row: Value) -> None:
        self.e, self.lanes, self.activation_group, self.row = e, lanes, activation_group, row
        self.ints, self.floats = ir.VectorType(I32, lanes), ir.VectorType(F32, lanes)
        self.groups, self.rows = word(e, args, GROUPS), word(e, word(e, args, ROWS_AT), 0)
        self.x, self.q, self.scales, self.sums, self.outliers = (
            word(e, args, i) for i in (X, Q, SCALES, SUMS, OUTLIERS)
        )
        with e.b.goto_entry_block():
            self.sizes = e.b.alloca(self.floats)
            self.place = e.b.alloca(I64)

    def emit(self) -> None:
        limit = self._limit()
        with self.e.each(const(0), self.groups) as group:
            self._item(group, limit)

    def _source(self, group: Value) -> Value:
        b = self.e.b
        return b.add(self.x, b.mul(b.add(b.mul(self.row, self.groups), group), const(2 * GROUP)))

    def _item(self, group: Value, limit: Value) -> None:
        """The 128 numbers that meet one record."""
        e, b = self.e, self.e.b
        item, x = b.add(b.mul(group, self.rows), self.row), self._source(group)
        found = b.add(self.outliers, b.mul(item, const(4 * OUTLIER_WORDS)))
        largest = self._keep_outliers(x, found, limit)
        for part in range(GROUP // self.activation_group):
            at = b.add(b.mul(item, const(4 * GROUP // self.activation_group)), const(4 * part))
            q = b.add(self.q, b.add(b.mul(item, const(GROUP)), const(part * self.activation_group)))
            source = e.at(x, 2 * part * self.activation_group)
            self._quantise(source, q, b.add(self.scales, at), b.add(self.sums, at), largest)

    def _limit(self) -> Value:
        """OUTLIER times the mean size; nothing is larger than NaN or inf."""
        e, b = self.e, self.e.b
        b.store(splat(F32, 0.0, self.lanes), self.sizes)
        with e.each(const(0), self.groups) as group:
            x = self._source(group)
            sizes = [
                self._size(e.load_floats("bf16", e.at(x, 2 * k), self.lanes)) for k in self._starts(GROUP)
            ]
            b.store(b.fadd(b.load(self.sizes), e.pairwise(b.fadd, sizes)), self.sizes)
        total = sum_lanes(e, b.load(self.sizes))
        numbers = b.uitofp(b.mul(self.groups, const(GROUP)), F32)
        return b.fmul(b.fdiv(total, numbers), ir.Constant(F32, OUTLIER))

    def _keep_outliers(self, x: Value, found: Value, limit: Value) -> Value:
        """Write a record's outliers to `found`; returns the limit, or inf where there are none or too many."""
        e, b = self.e, self.e.b
        above, infinite = self._broadcast(limit), ir.Constant(F32, float("inf"))
        sizes = [self._size(e.load_floats("bf16", e.at(x, 2 * k), self.lanes)) for k in self._starts(GROUP)]
        larger = [b.fcmp_ordered(">", size, above) for size in sizes]
        any_larger = e.call(f"llvm.vector.reduce.or.v{self.lanes}i1", I1, e.pairwise(b.or_, larger))
        e.store(ir.Constant(I32, 0), found, 4)
        before = b.block
        with b.if_then(any_larger, likely=False):
            counts = [b.zext(one, self.ints) for one in larger]
            count = e.call(f"llvm.vector.reduce.add.v{self.lanes}i32", I32, e.pairwise(b.add, counts))
            few = b.icmp_unsigned("<=", count, ir.Constant(I32, MOST_OUTLIERS))
            with b.if_then(few):
                e.store(count, found, 4)
                self._write_outliers(x, found, limit)
            bound, there = b.select(few, limit, infinite), b.block
        result = b.phi(F32)
        result.add_incoming(infinite, before)
        result.add_incoming(bound, there)
        return result

    def _write_outliers(self, x: Value, found: Value, limit: Value) -> None:
        e, b = self.e, self.e.b
        b.store(e.at(found, 8), self.place)
        with e.each(const(0), const(GROUP)) as k:
            value = e.load_floats("bf16", b.add(x, b.shl(k, const(1))), 1)
            value = b.extract_element(value, ir.Constant(I32, 0))
            size = e.call("llvm.fabs.f32", F32, value)
            with b.if_then(b.fcmp_ordered(">", size, limit)):
                to = b.load(self.place)
                e.store(b.trunc(k, I32), to, 4)
                e.store(value, e.at(to, 4), 4)
                b.store(e.at(to, 8), self.place)

    def _quantise(self, x: Value, q: Value, scale: Value, total: Value, limit: Value) -> None:
        """An activation group at x -> int8 at q, its scale and minus the sum of its q; above the limit is 0."""
        e, b, lanes, ints, floats = self.e, self.e.b, self.lanes, self.ints, self.floats
        above, starts = self._broadcast(limit), self._starts(self.activation_group)
        values = [e.load_floats("bf16", e.at(x, 2 * k), lanes) for k in starts]
        zero = splat(F32, 0.0, lanes)
        values = [b.select(b.fcmp_ordered(">", self._size(v), above), zero, v) for v in values]
        # Magnitudes compare as integers, where a NaN is larger than all numbers and is not lost.
        sizes = [b.bitcast(self._size(value), ints) for value in values]
        size = e.pairwise(lambda one, two: e.call(f"llvm.umax.v{lanes}i32", ints, one, two), sizes)
        peak = e.call(f"llvm.vector.reduce.umax.v{lanes}i32", I32, size)
        finite = b.icmp_unsigned("<", peak, ir.Constant(I32, FLOAT_INF_BITS))
        mask = e.broadcast(b.sext(finite, I32), lanes)
        peak = b.bitcast(e.call("llvm.umax.i32", I32, peak, ir.Constant(I32, SMALLEST_PEAK_BITS)), F32)
        e.store(b.fdiv(peak, ir.Constant(F32, 127.0)), scale, 4)
        usable = b.select(finite, peak, ir.Constant(F32, 1.0))
        inverse = e.broadcast(b.fdiv(ir.Constant(F32, 127.0), usable), lanes)
        integers = []
        for k, value in zip(starts, values, strict=True):
            scaled = b.fmul(b.bitcast(b.and_(b.bitcast(value, ints), mask), floats), inverse)
            integers.append(b.fptosi(e.call(f"llvm.rint.v{lanes}f32", floats, scaled), ints))
            e.store(b.trunc(integers[-1], ir.VectorType(I8, lanes)), e.at(q, k), 8)
        added = e.call(f"llvm.vector.reduce.add.v{lanes}i32", I32, e.pairwise(b.add, integers))
        e.store(b.neg(added), total, 4)

    def _starts(self, count: int) -> range:
        return range(0, count, self.lanes)

    def _size(self, values: Value) -> Value:
        return self.e.call(f"llvm.fabs.v{values.type.count}f32", values.type, values)

    def _broadcast(self, value: Value) -> Value:
        return self.e.broadcast(value, self.lanes)
