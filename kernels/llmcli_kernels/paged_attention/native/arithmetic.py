"""Register arithmetic of attention: products of words, powers of two.

Knows forms and registers, not memory's layout beyond the distance of rows. Called by `attend`, `weights` and `merge`.
"""

from collections.abc import Callable
from typing import NamedTuple

from llvmlite import ir

from llmcli_kernels.native.emit import F32, I16, I32, Emit, Value, const, splat
from llmcli_kernels.native.math import fma
from llmcli_kernels.paged_attention.native.form import Form

# 2^f = 1 + f (c0 + c1 f + ...) over |f| <= 1/2, of the smallest largest relative error: 1.6e-8 and 2.9e-6.
EXACT = (0.6931471824645996, 0.24022647738456726, 0.055503323674201965, 0.00961843691766262)
EXACT += (0.0013398873852565885, 0.00015353361959569156)
ROUGH = (0.6931241750717163, 0.24024099111557007, 0.055906426161527634, 0.009582852944731712)
# Adding it rounds to a whole number, and leaves that plus float32's exponent bias in the low bits.
ROUNDER = 1.5 * 2**23 + 127
LOWEST = -127.0  # its power of two counts as 0

# Adding it to a number of int16's range leaves the rounded number in the low 16 bits.
INT16_ROUNDER = 1.5 * 2**23
INT16_LARGEST = 32767.0
FLOAT_INF_BITS = 0x7F800000


def power_of_two(e: Emit, x: Value, coefficients: tuple[float, ...]) -> Value:
    """2^x of float32 vectors, x <= 0; exactly 1 of 0 and 0 of -inf; NaN of NaN."""
    b, lanes = e.b, x.type.count
    lowest, rounder = splat(F32, LOWEST, lanes), splat(F32, ROUNDER, lanes)
    x = b.select(b.fcmp_ordered("<", x, lowest), lowest, x)
    shifted = b.fadd(x, rounder)
    fraction = b.fsub(x, b.fsub(shifted, rounder))
    value = splat(F32, coefficients[-1], lanes)
    for coefficient in (*coefficients[-2::-1], 1.0):
        value = fma(e, value, fraction, splat(F32, coefficient, lanes))
    exponent = b.shl(b.bitcast(shifted, ir.VectorType(I32, lanes)), splat(I32, 23, lanes))
    return b.fmul(value, b.bitcast(exponent, x.type))


class Block(NamedTuple):
    """Rows and registers of columns whose sums are held at a time, and units that a turn of the loop adds to them."""

    rows: int
    columns: int
    unroll: int


# Largest first; the smaller ones take what is left of the rows.
BLOCKS = {
    16: (Block(8, 2, 4), Block(4, 4, 2), Block(2, 4, 2), Block(1, 8, 2)),
    8: (Block(4, 2, 4), Block(2, 4, 2), Block(1, 4, 2)),
}


class Product:
    """Sums of products of words: m rows of one operand, broadcast, by n registers of the other.

    Args:
        unroll: units of a turn of the loop.
    """

    def __init__(self, e: Emit, form: Form, unroll: int) -> None:
        self.e, self.form, self.unroll = e, form, unroll
        self.integer = form.arithmetic == "int16"
        self.lane = I32 if self.integer else F32
        self.vector = ir.VectorType(self.lane, form.lanes)

    def zeros(self, count: int) -> list[Value]:
        return [splat(self.lane, 0 if self.integer else 0.0, self.form.lanes)] * count

    def add(
        self,
        sums: list[Value],
        m: int,
        units: int,
        left: Value,
        left_stride: int,
        right: Value,
        right_stride: int,
        each_turn: Callable[[Value], None],
    ) -> list[Value]:
        """sums [m][n], as one list, plus left [m, units] times right [units, n registers].

        Args:
            each_turn: emits something for every turn of the loop; takes its number.
            left, right: addresses.
            left_stride: bytes from row to row of m.
            right_stride: bytes from unit to unit.
        """
        e, b, n, width = self.e, self.e.b, len(sums) // m, 4 * self.form.lanes

        def body(first: Value, sums: list[Value]) -> list[Value]:
            sums = list(sums)
            each_turn(b.sdiv(first, const(self.unroll)))
            at_left = b.add(left, b.shl(first, const(2)))
            at_right = b.add(right, b.mul(first, const(right_stride)))
            for unit in range(self.unroll):
                columns = [
                    e.load(self.vector, e.at(at_right, unit * right_stride + i * width), 4) for i in range(n)
                ]
                for row in range(m):
                    word = e.load(self.lane, e.at(at_left, row * left_stride + 4 * unit), 4)
                    factor = e.broadcast(word, self.form.lanes)
                    for i, column in enumerate(columns):
                        sums[row * n + i] = self._multiply_add(sums[row * n + i], factor, column)
            return sums

        return e.loop(0, units, self.unroll, sums, body)

    def _multiply_add(self, total: Value, x: Value, y: Value) -> Value:
        e, lanes = self.e, self.form.lanes
        ints, shorts = ir.VectorType(I32, lanes), ir.VectorType(I16, 2 * lanes)
        if self.form.arithmetic == "float":
            return fma(e, x, y, total)
        if self.form.arithmetic == "bf16":
            x, y = e.b.bitcast(x, ints), e.b.bitcast(y, ints)
            return e.call("llvm.x86.avx512bf16.dpbf16ps.512", self.vector, total, x, y)
        if lanes == 16:
            return e.call("llvm.x86.avx512.vpdpwssd.512", ints, total, x, y)
        x, y = e.b.bitcast(x, shorts), e.b.bitcast(y, shorts)
        return e.b.add(total, e.call("llvm.x86.avx2.pmadd.wd", ints, x, y))


def in_blocks(e: Emit, lanes: int, rows: Value, emit: Callable[[Block, Value], None]) -> None:
    """All of `rows`: emit(block, first row) does one block."""
    b, (largest, *smaller) = e.b, BLOCKS[lanes]
    with e.each(const(0), b.and_(rows, const(-largest.rows)), largest.rows) as first:
        emit(largest, first)
    for block in smaller:
        with b.if_then(b.icmp_signed("!=", b.and_(rows, const(block.rows)), const(0))):
            emit(block, b.and_(rows, const(-2 * block.rows)))
