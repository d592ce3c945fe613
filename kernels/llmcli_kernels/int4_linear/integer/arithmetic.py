"""The arithmetic, as LLVM IR: activations to int8, and one register block of the product.

Knows records and registers, not threads. Called by `program`.

x is held as q * a with q = rint(127 x / peak), a = peak / 127 and peak = max |x| over ACTIVATION_GROUP neighbouring k;
the product over these k is a * scale * (sum q*w - zero * sum q), exact up to the last two factors: sums and zero points
are integers. A group with an inf or NaN has q = 0 and that a, which makes its whole row of the output NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from llmcli_kernels.int4_linear.integer.emit import F16, F32, I8, I16, I32, Emit, Value, const, splat
from llmcli_kernels.int4_linear.integer.records import GROUP, PANEL, Layout

WORDS = GROUP // 8  # words of four k in either half of a record
UNROLL = 4
FLOAT_INF_BITS = 0x7F800000
SMALLEST_PEAK_BITS = (127 - 100) << 23  # 2**-100: a group of zeros must not divide by zero


@dataclass(frozen=True)
class Machine:
    """What a block may use.

    Attributes:
        name: "avx512vnni" or "avx2".
        lanes: int32 lanes of a register.
        tiles: by the number of activation rows, the registers of output rows in a block.
    """

    name: str
    lanes: int
    tiles: dict[int, int]

    @property
    def most_rows(self) -> int:
        return max(self.tiles)

    @property
    def vnni(self) -> bool:
        return self.name == "avx512vnni"


# 4 x 6 accumulators of AVX-512's 32 registers; AVX2 has 16.
MACHINES = {
    "avx512vnni": Machine("avx512vnni", 16, dict.fromkeys(range(1, 7), 4)),
    "avx2": Machine("avx2", 8, {1: 4, 2: 4, 3: 2, 4: 2}),
}


@dataclass(frozen=True)
class Operands:
    """Addresses: one record; int8 activations [rows, 128], their scales float32 [rows, parts] and minus their
    sums int32 [rows, parts]; the float32 sums [rows, 64] that are added to."""

    record: Value
    q: Value
    scales: Value
    sums: Value
    out: Value


class Block:
    """`rows` activation rows by some tiles of output rows, over one record.

    Args:
        first_tile, tiles: which registers of output rows of the panel.
        activation_group: k that share an activation scale: divides the weights' group.
        ahead: how many bytes ahead to prefetch, 0 for not at all.
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

    def emit(self, first_tile: int, tiles: int, ahead: int) -> None:
        self.first_tile, self.tiles, self.ahead = first_tile, tiles, ahead
        if ahead and first_tile == 0:
            for line in range(self.layout.scales, self.layout.nbytes, 64):
                self.e.prefetch(self.e.at(self.operands.record, ahead + line))
        # The halves are separate loops: the words are loaded again for the high nibbles, from L1, which saves the
        # registers that would keep them.
        span = min(self.activation_group, GROUP // 2)
        dots: list[Value] = []
        for start in range(0, GROUP, span):
            part, within = divmod(start, self.activation_group)
            if within == 0:
                dots = self._zero_points(part)
            half, first = divmod(start, GROUP // 2)
            dots = self._add_dots(half, first // 4, (first + span) // 4, dots)
            if within + span == self.activation_group:
                self._add_to_out(dots, part)

    def _zero_points(self, part: int) -> list[Value]:
        """-zero * sum of q, int32, for every register: tile-major, rows inside."""
        e, lanes, dots = self.e, self.machine.lanes, []
        for tile in range(self.tiles):
            at = self.layout.zeros + self._lane(part, tile)
            zero = e.load(ir.VectorType(I8, lanes), e.at(self.operands.record, at), 8)
            zero = e.b.bitcast(e.b.zext(zero, self.ints), self.shorts)
            for m in range(self.rows):
                total = e.load(I32, e.at(self.operands.sums, 4 * (m * self.parts + part)), 4)
                # Both fit in int16, and the zero's upper half is 0: a product of pairs is the int32 product.
                dots.append(self._multiply_pairs(zero, e.b.bitcast(e.broadcast(total, lanes), self.shorts)))
        return dots

    def _lane(self, part: int, tile: int) -> int:
        """The index of a tile's first output row among the scales, or zeros, of a record."""
        group = part * self.activation_group // self.layout.group_size
        return group * PANEL + (self.first_tile + tile) * self.machine.lanes

    def _add_dots(self, half: int, start: int, stop: int, dots: list[Value]) -> list[Value]:
        """`dots` plus the int32 sums of q * nibble over words start .. stop-1."""
        if self.machine.vnni:
            return self.e.loop(start, stop, UNROLL, dots, self._turn(half, self._add_dot_vnni))
        # A step adds two products to each int16, at most 2 * 15 * 127: eight steps fit.
        ones = splat(I16, 1, 2 * self.machine.lanes)
        for eight in range(start, stop, 8):
            pairs = [splat(I16, 0, 2 * self.machine.lanes)] * len(dots)
            pairs = self.e.loop(eight, eight + 8, UNROLL, pairs, self._turn(half, self._add_dot_avx2))
            wide = [self._multiply_pairs(pair, ones) for pair in pairs]
            dots = [self.e.b.add(x, y) for x, y in zip(dots, wide, strict=True)]
        return dots

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

    def _multiply_pairs(self, x: Value, y: Value) -> Value:
        """int16 products, two neighbours added: int32."""
        name = "llvm.x86.avx512.pmaddw.d.512" if self.machine.vnni else "llvm.x86.avx2.pmadd.wd"
        return self.e.call(name, self.ints, x, y)

    def _weights(self, half: int, j: Value, tile: int) -> Value:
        """The nibbles of word j as bytes."""
        e, lanes = self.e, self.machine.lanes
        offset = (self.first_tile + tile) * 4 * lanes
        address = e.b.add(e.at(self.operands.record, offset), e.b.mul(j, const(4 * PANEL)))
        if self.ahead and half == 0:
            e.prefetch(e.at(address, self.ahead))
        word = e.load(self.bytes, address, 32)
        return e.b.and_(e.b.lshr(word, splat(I8, 4, 4 * lanes)) if half else word, splat(I8, 15, 4 * lanes))

    def _activations(self, half: int, j: Value, m: int) -> Value:
        e = self.e
        address = e.b.add(e.at(self.operands.q, m * GROUP + half * GROUP // 2), e.b.shl(j, const(2)))
        return e.broadcast(e.load(I32, address, 4), self.machine.lanes)

    def _add_to_out(self, dots: list[Value], part: int) -> None:
        """out += dots * scale * activation scale."""
        e, lanes = self.e, self.machine.lanes
        for tile in range(self.tiles):
            at = self.layout.scales + 2 * self._lane(part, tile)
            scale = e.load(ir.VectorType(F16, lanes), e.at(self.operands.record, at), 16)
            scale = e.b.fpext(scale, self.floats)
            for m in range(self.rows):
                factor = e.load(F32, e.at(self.operands.scales, 4 * (m * self.parts + part)), 4)
                factor = e.b.fmul(scale, e.broadcast(factor, lanes))
                where = e.at(self.operands.out, 4 * (m * PANEL + (self.first_tile + tile) * lanes))
                exact = e.b.sitofp(dots[tile * self.rows + m], self.floats)
                value = e.load(self.floats, where, 4)
                value = e.call(f"llvm.fma.v{lanes}f32", self.floats, exact, factor, value)
                e.store(value, where, 4)


def load_bfloat16(e: Emit, address: Value, lanes: int) -> Value:
    """`lanes` bfloat16 as the int32 bits of their float32 values."""
    bits = e.b.zext(e.load(ir.VectorType(I16, lanes), address, 2), ir.VectorType(I32, lanes))
    return e.b.shl(bits, splat(I32, 16, lanes))


def store_bfloat16(e: Emit, values: Value, address: Value, lanes: int) -> None:
    """float32 values rounded to the nearest, ties to even; NaN stays NaN."""
    b, ints = e.b, ir.VectorType(I32, lanes)
    bits = b.bitcast(values, ints)
    odd = b.and_(b.lshr(bits, splat(I32, 16, lanes)), splat(I32, 1, lanes))
    rounded = b.lshr(b.add(bits, b.add(odd, splat(I32, 0x7FFF, lanes))), splat(I32, 16, lanes))
    rounded = b.select(b.fcmp_unordered("uno", values, values), splat(I32, 0x7FC0, lanes), rounded)
    e.store(b.trunc(rounded, ir.VectorType(I16, lanes)), address, 2)


def quantise(
    e: Emit, lanes: int, activation_group: int, x: Value, q: Value, scales: Value, sums: Value
) -> None:
    """128 bfloat16 at x -> int8 at q, and for each activation group its scale and minus the sum of its q."""
    b, ints, floats = e.b, ir.VectorType(I32, lanes), ir.VectorType(F32, lanes)
    for part in range(GROUP // activation_group):
        starts = range(part * activation_group, (part + 1) * activation_group, lanes)
        bits = [load_bfloat16(e, e.at(x, 2 * k), lanes) for k in starts]
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
