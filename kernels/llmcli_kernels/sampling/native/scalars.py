"""Scalar numbers of the sampling kernel: keys of float32, a logarithm, variables and loops of generated code.

A key is a float32's bits as an integer in the order of the numbers, sign-extended to int64: what is searched by
bisection is found to the last bit.
"""

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llvmlite import ir

from llmcli_kernels.native.emit import F32, I32, I64, Emit, Value, const

F64 = ir.DoubleType()
MANTISSA_BITS, MANTISSA = 52, (1 << 52) - 1
LOG_TERMS = 12  # of the series, whose ratio is below 0.0295


def key(value: float) -> int:
    """The key of a number that is known now."""
    (bits,) = struct.unpack("<i", struct.pack("<f", value))
    return bits if bits >= 0 else bits ^ 0x7FFFFFFF


INFINITE = key(math.inf)
LOWEST = -INFINITE  # of the finite numbers
ALL = LOWEST - 1  # of -inf


def key_of(e: Emit, value: Value) -> Value:
    return e.b.sext(_mirrored(e, e.b.bitcast(value, I32)), I64)


def float_of(e: Emit, number: Value) -> Value:
    return e.b.bitcast(_mirrored(e, e.b.trunc(number, I32)), F32)


def _mirrored(e: Emit, bits: Value) -> Value:
    negative = e.b.icmp_signed("<", bits, ir.Constant(I32, 0))
    return e.b.select(negative, e.b.xor(bits, ir.Constant(I32, 0x7FFFFFFF)), bits)


def key_at_or_above(e: Emit, value: Value) -> Value:
    """The key of the smallest float32 that is not below a float64."""
    nearest = e.b.fptrunc(value, F32)
    below = e.b.fcmp_ordered("<", e.b.fpext(nearest, F64), value)
    return e.b.add(key_of(e, nearest), e.b.zext(below, I64))


def larger(e: Emit, x: Value, y: Value) -> Value:
    return e.b.select(e.b.icmp_signed(">", x, y), x, y)


def double(value: float) -> ir.Constant:
    return ir.Constant(F64, value)


def exponent(e: Emit, value: Value) -> Value:
    """⌊log2⌋ of a normal float64 > 0, int64."""
    return e.b.sub(e.b.lshr(e.b.bitcast(value, I64), const(MANTISSA_BITS)), const(1023))


def log(e: Emit, value: Value) -> Value:
    """ln of a normal float64 > 0: 2^n m is n ln 2 + 2 artanh((m - 1) / (m + 1)), with m within a factor √2 of 1."""
    b = e.b
    bits = b.bitcast(value, I64)
    mantissa = b.bitcast(b.or_(b.and_(bits, const(MANTISSA)), const(1023 << MANTISSA_BITS)), F64)
    upper = b.fcmp_ordered(">", mantissa, double(math.sqrt(2)))
    mantissa = b.select(upper, b.fmul(mantissa, double(0.5)), mantissa)
    n = b.sitofp(b.add(exponent(e, value), b.zext(upper, I64)), F64)
    s = b.fdiv(b.fsub(mantissa, double(1.0)), b.fadd(mantissa, double(1.0)))
    square, series = b.fmul(s, s), double(0.0)
    for term in reversed(range(LOG_TERMS)):
        series = b.fadd(b.fmul(series, square), double(2 / (2 * term + 1)))
    return b.fadd(b.fmul(n, double(math.log(2))), b.fmul(s, series))


class Variable:
    """A place on the stack; LLVM keeps it in a register. To be made outside of loops."""

    def __init__(self, e: Emit, value: Value) -> None:
        self._b = e.b
        with e.b.goto_entry_block():
            self.place = e.b.alloca(value.type)
        self.set(value)

    def get(self) -> Value:
        return self._b.load(self.place)

    def set(self, value: Value) -> None:
        self._b.store(value, self.place)


@contextmanager
def repeat(e: Emit, condition: Callable[[], Value]) -> Iterator[None]:
    """with repeat(e, condition): what is emitted inside is done while the condition holds."""
    head, inside, end = e.block("while"), e.block("again"), e.block("enough")
    e.b.branch(head)
    e.b.position_at_end(head)
    e.b.cbranch(condition(), inside, end)
    e.b.position_at_end(inside)
    yield
    e.b.branch(head)
    e.b.position_at_end(end)
