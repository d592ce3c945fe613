"""One register block of an integer product, as LLVM IR: some activation rows by some output rows over one record.

Knows records and registers, not threads. Called by `product`. The product over the k of an activation group is
a * scale * (sum q*w - zero * sum q), exact up to the first two factors: sums and zero points are integers.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from llmcli_kernels.int4_linear.native.records import GROUP, PANEL, Layout
from llmcli_kernels.native.emit import F16, F32, I8, I16, I32, I64, Emit, Value, const, splat
from llmcli_kernels.native.kernel import function
from llmcli_kernels.native.machine import Machine

UNROLL = 4
UPPER_SHIFT = 4  # bits below the upper nibble of a byte
# By the number of activation rows, the registers of output rows in a block: 4 x 6 accumulators of AVX-512's 32
# registers. AVX2's 16 hold the weights of eight words, which all rows meet before the next eight.
TILES = {
    "avx512vnni": dict.fromkeys(range(1, 7), 4),
    "avx2": dict.fromkeys(range(1, 9), 1),
}


@dataclass(frozen=True)
class Operands:
    """Addresses: one record; int8 activations [rows, 128], their scales float32 [rows, parts] and minus their
    sums int32 [rows, parts], their outliers int32 [rows, OUTLIER_WORDS]; the float32 sums [rows, 64] that are added
    to; and where in a later record a prefetching block starts to ask."""

    record: Value
    q: Value
    scales: Value
    sums: Value
    outliers: Value
    out: Value
    later: Value


class Block:
    """`rows` activation rows by some tiles of output rows, over one record.

    Args:
        lane, tiles: the first output row of the panel, and how many registers of them.
        activation_group: k that share an activation scale: divides the weights' group.
        halves: of the later record that it prefetches.
    """

    def __init__(
        self, e: Emit, machine: Machine, layout: Layout, operands: Operands, rows: int, activation_group: int
    ) -> None:
        self.e, self.machine, self.layout, self.operands = e, machine, layout, operands
        self.rows, self.activation_group = rows, activation_group
        self.parts = GROUP // activation_group
        lanes = machine.lanes
        self.ints, self.floats = ir.VectorType(I32, lanes), ir.VectorType(F32, lanes)
        self.shorts, self.bytes = ir.VectorType(I16, 2 * lanes), ir.VectorType(I8, 4 * lanes)

    def emit(self, lane: Value, tiles: int, halves: int) -> None:
        self.lane, self.tiles, self.halves = lane, tiles, halves
        b = self.e.b
        self.words_at = b.add(self.operands.record, b.shl(lane, const(2)))
        self.out_at = b.add(self.operands.out, b.shl(lane, const(2)))
        for part in range(self.parts):
            self._add_to_out(self._dots(part), part)

    def _dots(self, part: int) -> list[Value]:
        """q * w minus the zero points, summed over an activation group: int32, tile-major, rows inside.

        The halves of 4-bit words are separate loops: the words are loaded again for the other nibbles, from L1, which
        saves the registers that would keep them. Upper nibbles stay where they are for VNNI, as 16 w, and the sums are
        shifted: a shift of weights would take the dot product's place in the core.
        """
        in_half = GROUP * self.layout.bits // 8
        start, stop = part * self.activation_group, (part + 1) * self.activation_group
        upper = self.machine.vnni and stop > in_half
        dots = self._zero_points(part, shift=UPPER_SHIFT if upper else 0)
        for half in reversed(range(GROUP // in_half)):
            first, last = (min(max(k - half * in_half, 0), in_half) // 4 for k in (start, stop))
            if first < last:
                dots = self._add_dots(half, first, last, dots)
            if half == 1 and upper:
                dots = [self.e.b.ashr(dot, splat(I32, UPPER_SHIFT, self.machine.lanes)) for dot in dots]
        return dots

    def _zero_points(self, part: int, *, shift: int) -> list[Value]:
        """-zero * sum of q, int32, for every register, times 2^shift."""
        e, lanes, dots = self.e, self.machine.lanes, []
        for tile in range(self.tiles):
            if self.layout.zeros is None:
                zero = splat(I32, self._zero_of_bytes() << shift, lanes)
            else:
                at = e.at(self.operands.record, self.layout.zeros + self._scale_index(part, tile))
                zero = e.b.zext(e.load(ir.VectorType(I8, lanes), e.b.add(at, self.lane), 8), self.ints)
                zero = e.b.shl(zero, splat(I32, shift, lanes))
            zero = e.b.bitcast(zero, self.shorts)
            for m in range(self.rows):
                total = e.load(I32, e.at(self.operands.sums, 4 * (m * self.parts + part)), 4)
                # Both fit in int16, and the zero's upper half is 0: a product of pairs is the int32 product.
                dots.append(self._multiply_pairs(zero, e.b.bitcast(e.broadcast(total, lanes), self.shorts)))
        return dots

    def _zero_of_bytes(self) -> int:
        """VNNI wants one factor unsigned: it is given w + 128. AVX2 is given |w|, and its sign to the other."""
        return 128 if self.machine.vnni else 0

    def _scale_index(self, part: int, tile: int) -> int:
        """Where a tile's scales, or zeros, are among those of a record, were it the panel's first lane."""
        group = part * self.activation_group // self.layout.group_size
        return group * PANEL + tile * self.machine.lanes

    def _add_dots(self, half: int, start: int, stop: int, dots: list[Value]) -> list[Value]:
        """`dots` plus the int32 sums of q * w over words start .. stop-1."""
        if self.machine.vnni:
            return self.e.loop(start, stop, UNROLL, dots, self._turn(half, self._add_dot_vnni))
        if self.layout.bits == 8:
            return self.e.loop(start, stop, UNROLL, dots, self._turn(half, self._add_bytes_avx2))
        for first in range(start, stop, 8):
            dots = self._add_eight_avx2(half, first, dots)
        return dots

    def _add_eight_avx2(self, half: int, first: int, dots: list[Value]) -> list[Value]:
        """Row by row: a word adds two products to each int16, at most 2 * 15 * 127, so eight words fit."""
        e, dots = self.e, list(dots)
        words = [const(j) for j in range(first, first + 8)]
        weights = [self._weights(half, j, 0) for j in words]
        for m in range(self.rows):
            products = [
                e.call(
                    "llvm.x86.avx2.pmadd.ub.sw",
                    self.shorts,
                    w,
                    e.b.bitcast(self._activations(half, j, m), self.bytes),
                )
                for j, w in zip(words, weights, strict=True)
            ]
            dots[m] = e.b.add(dots[m], self._multiply_pairs(e.pairwise(e.b.add, products), self._ones()))
        return dots

    def _ones(self) -> Value:
        return splat(I16, 1, 2 * self.machine.lanes)

    def _turn(self, half: int, add_dot: Callable[[Value, Value, Value], Value]) -> Callable:
        def body(first: Value, dots: list[Value]) -> list[Value]:
            dots = list(dots)
            for step in range(UNROLL):
                j = self.e.at(first, step)
                weights = [self._weights(half, j, tile) for tile in range(self.tiles)]
                for m in range(self.rows):
                    x = self._activations(half, j, m)
                    for tile, w in enumerate(weights):
                        i = tile * self.rows + m
                        dots[i] = add_dot(dots[i], w, x)
            return dots

        return body

    def _add_dot_vnni(self, total: Value, w: Value, x: Value) -> Value:
        return self.e.call(
            "llvm.x86.avx512.vpdpbusd.512", self.ints, total, self.e.b.bitcast(w, self.ints), x
        )

    def _add_bytes_avx2(self, total: Value, w: Value, x: Value) -> Value:
        """Both signed, at most 127 in size: two products fit in int16 if the unsigned factor is |w|."""
        e, x = self.e, self.e.b.bitcast(x, self.bytes)
        same_at_least = ir.Constant(ir.IntType(1), 0)  # the smallest value stays itself
        size = e.call(f"llvm.abs.v{4 * self.machine.lanes}i8", self.bytes, w, same_at_least)
        signed = e.call("llvm.x86.avx2.psign.b", self.bytes, x, w)
        pairs = e.call("llvm.x86.avx2.pmadd.ub.sw", self.shorts, size, signed)
        return e.b.add(total, self._multiply_pairs(pairs, self._ones()))

    def _multiply_pairs(self, x: Value, y: Value) -> Value:
        """int16 products, two neighbours added: int32."""
        name = "llvm.x86.avx512.pmaddw.d.512" if self.machine.vnni else "llvm.x86.avx2.pmadd.wd"
        return self.e.call(name, self.ints, x, y)

    def _weights(self, half: int, j: Value, tile: int) -> Value:
        """The weights of word j as bytes; for VNNI the upper ones times 16."""
        e, lanes = self.e, self.machine.lanes
        address = e.b.add(e.at(self.words_at, tile * 4 * lanes), e.b.mul(j, const(4 * PANEL)))
        if self.halves:
            self._prefetch(half, j, tile)
        word = e.load(self.bytes, address, 32)
        if self.layout.bits == 8:
            return e.b.xor(word, splat(I8, 128, 4 * lanes)) if self.machine.vnni else word
        if half and self.machine.vnni:
            return e.b.and_(word, splat(I8, 15 << UPPER_SHIFT, 4 * lanes))
        shifted = e.b.lshr(word, splat(I8, UPPER_SHIFT, 4 * lanes)) if half else word
        return e.b.and_(shifted, splat(I8, 15, 4 * lanes))

    def _prefetch(self, half: int, j: Value, tile: int) -> None:
        """The later record's lines, evenly over all words: many at once would wait for each other."""
        e, later = self.e, self.operands.later
        if self.machine.vnni:
            if tile == 0:
                nbytes = 16 * self.layout.bits * self.halves
                first = half * self.layout.weight_bytes // 4 * self.halves
                start = e.b.add(e.at(later, first), e.b.mul(j, const(nbytes)))
                for line in range(0, nbytes, 64):
                    e.prefetch(e.at(start, line))
        elif half == 0:  # 32 bytes with each word of the first half: the same line twice
            start = e.b.add(later, e.b.mul(self.lane, const(self.layout.weight_bytes // PANEL)))
            e.prefetch(e.b.add(start, e.b.mul(j, const(32))))

    def _activations(self, half: int, j: Value, m: int) -> Value:
        e = self.e
        offset = m * GROUP + half * GROUP // 2
        address = e.b.add(e.at(self.operands.q, offset), e.b.shl(j, const(2)))
        return e.broadcast(e.load(I32, address, 4), self.machine.lanes)

    def _add_to_out(self, dots: list[Value], part: int) -> None:
        """out += dots * scale * activation scale; the scale of 8-bit weights is the row's, and comes last of all."""
        e, lanes = self.e, self.machine.lanes
        for tile in range(self.tiles):
            scale = None if self.layout.scales is None else self._scale(part, tile)
            for m in range(self.rows):
                factor = e.load(F32, e.at(self.operands.scales, 4 * (m * self.parts + part)), 4)
                factor = e.broadcast(factor, lanes)
                if scale is not None:
                    factor = e.b.fmul(scale, factor)
                where = e.at(self.out_at, 4 * (m * PANEL + tile * lanes))
                exact = e.b.sitofp(dots[tile * self.rows + m], self.floats)
                value = e.load(self.floats, where, 4)
                value = e.call(f"llvm.fma.v{lanes}f32", self.floats, exact, factor, value)
                e.store(value, where, 4)

    def _scale(self, part: int, tile: int) -> Value:
        e, lanes = self.e, self.machine.lanes
        assert self.layout.scales is not None
        at = e.at(self.operands.record, self.layout.scales + 2 * self._scale_index(part, tile))
        at = e.b.add(at, e.b.shl(self.lane, const(1)))
        scale = e.load(ir.VectorType(F16, lanes), at, 16)
        return e.b.fpext(scale, self.floats)


def emit_outliers(module: ir.Module, machine: Machine, layout: Layout) -> ir.Function:
    """outliers(record, found, out): out [64] += the outliers of a row times their columns of the record."""
    lanes, ints, floats = machine.lanes, ir.VectorType(I32, machine.lanes), ir.VectorType(F32, machine.lanes)
    with function(module, "outliers", 3, internal=True) as (e, (record, found, out)):
        b = e.b
        with e.each(const(0), b.zext(e.load(I32, found, 4), I64)) as i:
            entry = b.add(e.at(found, 8), b.shl(i, const(3)))
            k, x = b.zext(e.load(I32, entry, 4), I64), e.broadcast(e.load(F32, e.at(entry, 4), 4), lanes)
            in_half = const(GROUP * layout.bits // 8)
            half, rest = b.udiv(k, in_half), b.urem(k, in_half)
            words = b.add(record, b.mul(b.lshr(rest, const(2)), const(4 * PANEL)))
            bit = b.add(b.shl(b.and_(rest, const(3)), const(3)), b.shl(half, const(2)))
            bit = e.broadcast(b.trunc(bit, I32), lanes)
            group = b.mul(b.udiv(k, const(layout.group_size)), const(PANEL))
            for first in range(0, PANEL, lanes):
                shifted = b.lshr(e.load(ints, e.at(words, 4 * first), 32), bit)
                if layout.scales is None or layout.zeros is None:
                    weight, factor = b.sext(b.trunc(shifted, ir.VectorType(I8, lanes)), ints), x
                else:
                    zero = b.add(e.at(record, layout.zeros + first), group)
                    zero = b.zext(e.load(ir.VectorType(I8, lanes), zero, 8), ints)
                    weight = b.sub(b.and_(shifted, splat(I32, 15, lanes)), zero)
                    scale = b.add(e.at(record, layout.scales + 2 * first), b.shl(group, const(1)))
                    factor = b.fmul(x, e.load_floats("fp16", scale, lanes))
                to = e.at(out, 4 * first)
                sums = e.load(floats, to, 4)
                e.store(
                    e.call(f"llvm.fma.v{lanes}f32", floats, b.sitofp(weight, floats), factor, sums), to, 4
                )
    return e.function
