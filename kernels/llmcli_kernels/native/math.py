"""Vector arithmetic that LLVM has no instruction for: exponentials, sums and maxima over lanes; and names of dtypes.

Knows no kernel. Bits do not depend on the machine or on the number of lanes, but for `sum_lanes`, whose order is that
of a tree over the lanes it is given.
"""

import math
import struct

import torch
from llvmlite import ir

from llmcli_kernels.native.emit import F32, I32, Emit, Value, splat
from llmcli_kernels.native.transpose import shuffle

# Emit's names of the dtypes of activations.
KINDS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}

# e^r = 1 + r + r² (c0 + c1 r + ...): the smallest largest relative error, 4e-9, over |r| <= ln 2 / 2.
EXP = (
    0.4999999403953552,
    0.1666652113199234,
    0.04166838899254799,
    0.00836874544620514,
    0.0013814539415761828,
)
# Two float32 that add up to ln 2; the product of the first and a small whole number is exact in fma.
LN2_HIGH = 0.693147182464599609375
LN2_LOW = math.log(2) - LN2_HIGH
ROUNDER, ROUNDER_BITS = 1.5 * 2**23, 0x4B400000  # adding it rounds to a whole number, in the low bits


def float_word(value: float) -> int:
    """The word of a kernel that holds a float32."""
    return struct.unpack("<I", struct.pack("<f", value))[0]


def fma(e: Emit, x: Value, y: Value, z: Value) -> Value:
    return e.call(f"llvm.fma.v{x.type.count}f32", x.type, x, y, z)


def exp(e: Emit, x: Value) -> Value:
    """e^x of <lanes x float>, within 1.2e-7 of it; subnormal, 0 and inf where it should be, NaN of NaN."""
    lanes = x.type.count
    x = _limited(e, x, -104.0, 89.0)
    rounder = splat(F32, ROUNDER, lanes)
    shifted = fma(e, x, splat(F32, 1 / math.log(2), lanes), rounder)
    whole = e.b.fsub(shifted, rounder)
    r = fma(e, whole, splat(F32, -LN2_HIGH, lanes), x)
    r = fma(e, whole, splat(F32, -LN2_LOW, lanes), r)
    return _exp_times_power(e, r, shifted)


def larger(e: Emit, x: Value, y: Value) -> Value:
    """Of each lane; y where either is NaN."""
    return e.b.select(e.b.fcmp_ordered(">", x, y), x, y)


def largest_lane(e: Emit, x: Value) -> Value:
    """In every lane."""
    lanes = x.type.count
    distance = lanes // 2
    while distance:
        x = larger(e, x, shuffle(e, x, x, [i ^ distance for i in range(lanes)]))
        distance //= 2
    return x


def sum_lanes(e: Emit, vector: Value) -> Value:
    """The sum of a vector of 2^n float32: halves are added until one is left."""
    b, lanes = e.b, vector.type.count
    while lanes > 1:
        lanes //= 2
        low, high = (
            b.shuffle_vector(
                vector, vector, ir.Constant(ir.VectorType(I32, lanes), list(range(i, i + lanes)))
            )
            for i in (0, lanes)
        )
        vector = b.fadd(low, high)
    return b.extract_element(vector, ir.Constant(I32, 0))


def _limited(e: Emit, x: Value, low: float, high: float) -> Value:
    """A NaN is none of less and more, and stays."""
    b, lanes = e.b, x.type.count
    for limit, less in ((splat(F32, low, lanes), "<"), (splat(F32, high, lanes), ">")):
        x = b.select(b.fcmp_ordered(less, x, limit), limit, x)
    return x


def _exp_times_power(e: Emit, r: Value, shifted: Value) -> Value:
    """e^r 2^n; n is in the low bits of `shifted`. In two steps, either of which is a normal number."""
    b, lanes = e.b, r.type.count
    ints, one = ir.VectorType(I32, lanes), splat(F32, 1.0, lanes)
    value = splat(F32, EXP[-1], lanes)
    for coefficient in reversed(EXP[:-1]):
        value = fma(e, value, r, splat(F32, coefficient, lanes))
    value = b.fadd(one, fma(e, b.fmul(r, r), value, r))
    n = b.sub(b.bitcast(shifted, ints), splat(I32, ROUNDER_BITS, lanes))
    half = b.ashr(n, splat(I32, 1, lanes))
    for power in (half, b.sub(n, half)):
        bits = b.shl(b.add(power, splat(I32, 127, lanes)), splat(I32, 23, lanes))
        value = b.fmul(value, b.bitcast(bits, r.type))
    return value
