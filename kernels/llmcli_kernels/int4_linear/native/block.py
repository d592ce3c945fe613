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
# By the number of activation rows, the registers of output rows in a block: 4 x 6 accumulators of AVX-512's 32
# registers; AVX2 has 16.
TILES = {
    "avx512vnni": dict.fromkeys(range(1, 7), 4),
    "avx2": {1: 4, 2: 4, 3: 2, 4: 2},
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
        first_tile, tiles: which registers of output rows of the panel.
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

    def emit(self, first_tile: int, tiles: int, halves: int) -> None:
        self.first_tile, self.tiles, self.halves = first_tile, tiles, halves
        if halves and first_tile == 0:
            for line in range(self.layout.weight_bytes, self.layout.nbytes, 64):
                self.e.prefetch(self.e.at(self.operands.later, line))
        # The halves of 4-bit words are separate loops: the words are loaded again for the high nibbles, from L1, which
        # saves the registers that would keep them.
        in_half = GROUP * self.layout.bits // 8
        span = min(self.activation_group, in_half)
        dots: list[Value] = []
        for start in range(0, GROUP, span):
            part, within = divmod(start, self.activation_group)
            if within == 0:
                dots = self._zero_points(part)
            half, first = divmod(start, in_half)
            dots = self._add_dots(half, first // 4, (first + span) // 4, dots)
            if within + span == self.activation_group:
                self._add_to_out(dots, part)

    def _zero_points(self, part: int) -> list[Value]:
        """-zero * sum of q, int32, for every register: tile-major, rows inside."""
        e, lanes, dots = self.e, self.machine.lanes, []
        for tile in range(self.tiles):
            if self.layout.zeros is None:
                zero = splat(I32, self._zero_of_bytes(), lanes)
            else:
                at = self.layout.zeros + self._lane(part, tile)
                zero = e.b.zext(
                    e.load(ir.VectorType(I8, lanes), e.at(self.operands.record, at), 8), self.ints
                )
            zero = e.b.bitcast(zero, self.shorts)
            for m in range(self.rows):
                total = e.load(I32, e.at(self.operands.sums, 4 * (m * self.parts + part)), 4)
                # Both fit in int16, and the zero's upper half is 0: a product of pairs is the int32 product.
                dots.append(self._multiply_pairs(zero, e.b.bitcast(e.broadcast(total, lanes), self.shorts)))
        return dots

    def _zero_of_bytes(self) -> int:
        """VNNI wants one factor unsigned: it is given w + 128. AVX2 is given |w|, and its sign to the other."""
        return 128 if self.machine.vnni else 0

    def _lane(self, part: int, tile: int) -> int:
        """The index of a tile's first output row among the scales, or zeros, of a record."""
        group = part * self.activation_group // self.layout.group_size
        return group * PANEL + (self.first_tile + tile) * self.machine.lanes

    def _add_dots(self, half: int, start: int, stop: int, dots: list[Value]) -> list[Value]:
        """`dots` plus the int32 sums of q * w over words start .. stop-1."""
        if self.machine.vnni:
            return self.e.loop(start, stop, UNROLL, dots, self._turn(half, self._add_dot_vnni))
        if self.layout.bits == 8:
            return self.e.loop(start, stop, UNROLL, dots, self._turn(half, self._add_bytes_avx2))
        # A step adds two products to each int16, at most 2 * 15 * 127: eight steps fit.
        for eight in range(start, stop, 8):
            pairs = [splat(I16, 0, 2 * self.machine.lanes)] * len(dots)
            pairs = self.e.loop(eight, eight + 8, UNROLL, pairs, self._turn(half, self._add_dot_avx2))
            wide = [self._multiply_pairs(pair, self._ones()) for pair in pairs]
            dots = [self.e.b.add(x, y) for x, y in zip(dots, wide, strict=True)]
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

    def _add_dot_avx2(self, total: Value, w: Value, x: Value) -> Value:
        x = self.e.b.bitcast(x, self.bytes)
        return self.e.b.add(total, self.e.call("llvm.x86.avx2.pmadd.ub.sw", self.shorts, w, x))

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
        """The weights of word j as bytes."""
        e, lanes = self.e, self.machine.lanes
        offset = (self.first_tile + tile) * 4 * lanes
        address = e.b.add(e.at(self.operands.record, offset), e.b.mul(j, const(4 * PANEL)))
        if self.halves:
            self._prefetch(half, j, tile)
        word = e.load(self.bytes, address, 32)
        if self.layout.bits == 8:
            return e.b.xor(word, splat(I8, 128, 4 * lanes)) if self.machine.vnni else word
        return e.b.and_(e.b.lshr(word, splat(I8, 4, 4 * lanes)) if half else word, splat(I8, 15, 4 * lanes))

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
        elif half == 0 and tile * self.machine.lanes % 16 == 0:  # a strip of it with each strip
            offset = (self.first_tile + tile) * 4 * self.machine.lanes
            e.prefetch(e.b.add(e.at(later, offset), e.b.mul(j, const(4 * PANEL))))

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
                where = e.at(self.operands.out, 4 * (m * PANEL + (self.first_tile + tile) * lanes))
                exact = e.b.sitofp(dots[tile * self.rows + m], self.floats)
                value = e.load(self.floats, where, 4)
                value = e.call(f"llvm.fma.v{lanes}f32", self.floats, exact, factor, value)
                e.store(value, where, 4)

    def _scale(self, part: int, tile: int) -> Value:
        e, lanes = self.e, self.machine.lanes
        assert self.layout.scales is not None
        at = self.layout.scales + 2 * self._lane(part, tile)
        scale = e.load(ir.VectorType(F16, lanes), e.at(self.operands.record, at), 16)
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
