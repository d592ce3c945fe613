"""8-bit storage of a vector as machine code: `paged_kv.quantize` to the bit.

Called by the kernel that writes the cache; knows nothing of the cache.
"""

from functools import reduce

from llvmlite import ir

from llmcli_kernels.native.emit import F32, I8, I32, Emit, Value, splat

LARGEST = {"int8": 127.0, "fp8": 448.0}
FLOAT_INF_BITS = 0x7F800000
SMALLEST_NORMAL = 2.0**-126
DIGITS_DROPPED = 20  # of float32's 23, for the 3 of float8 e4m3
EXPONENT_DIFFERENCE = (127 - 7) << 3  # of the biases, where float8 has its exponent
FLOAT8_NORMAL = 2.0**-6
# Adding it to less than FLOAT8_NORMAL rounds to steps of 2^-9, float8's subnormals, and counts them in the low bits.
ROUNDER, ROUNDER_BITS = 2.0**14, 0x46800000


def store_8_bits(e: Emit, storage: str, parts: list[Value], at: Value, scale_at: Value) -> None:
    """Float32 vectors, one after the other, to bytes at an address, and their scale to another.

    Args:
        storage: "int8" or "fp8" (float8 e4m3fn).
    """
    b, lanes = e.b, parts[0].type.count
    ints, floats = ir.VectorType(I32, lanes), parts[0].type
    # Magnitudes compare as integers, where a NaN is larger than all numbers and is not lost.
    bits = [b.bitcast(part, ints) for part in parts]
    sizes = [b.and_(part, splat(I32, 0x7FFFFFFF, lanes)) for part in bits]
    size = reduce(lambda one, two: e.call(f"llvm.umax.v{lanes}i32", ints, one, two), sizes)
    peak = e.call(f"llvm.vector.reduce.umax.v{lanes}i32", I32, size)
    finite = b.icmp_unsigned("<", peak, ir.Constant(I32, FLOAT_INF_BITS))
    scale, inverse = _scale(e, b.bitcast(peak, F32), finite, LARGEST[storage])
    e.store(scale, scale_at, 4)
    inverse, mask = e.broadcast(inverse, lanes), e.broadcast(b.sext(finite, I32), lanes)
    for i, part in enumerate(bits):
        scaled = b.fmul(b.bitcast(b.and_(part, mask), floats), inverse)
        stored = _int8(e, scaled) if storage == "int8" else _float8(e, scaled)
        e.store(b.trunc(stored, ir.VectorType(I8, lanes)), e.at(at, i * lanes), 1)


def _scale(e: Emit, peak: Value, finite: Value, largest: float) -> tuple[Value, Value]:
    """The scale of a vector, and what its numbers are multiplied by."""
    b = e.b
    zero, one, tiny, most, nan = (
        ir.Constant(F32, number) for number in (0.0, 1.0, SMALLEST_NORMAL, largest, float("nan"))
    )
    scale = b.fdiv(peak, most)
    usable = b.and_(finite, b.fcmp_ordered(">=", scale, tiny))
    scale = b.select(usable, scale, zero)
    inverse = b.select(usable, b.fdiv(one, b.select(usable, scale, one)), zero)
    return b.select(finite, scale, nan), inverse


def _int8(e: Emit, scaled: Value) -> Value:
    """Rounded half to even; the largest is at most a rounding step above 127."""
    lanes = scaled.type.count
    whole = e.call(f"llvm.rint.v{lanes}f32", scaled.type, scaled)
    return e.b.fptosi(whole, ir.VectorType(I32, lanes))


def _float8(e: Emit, scaled: Value) -> Value:
    """Rounded half to even; the largest is at most a rounding step above 448."""
    b, lanes = e.b, scaled.type.count

    def number(value: int) -> ir.Constant:
        return splat(I32, value, lanes)

    bits = b.bitcast(scaled, ir.VectorType(I32, lanes))
    size = b.and_(bits, number(0x7FFFFFFF))
    odd = b.and_(b.lshr(size, number(DIGITS_DROPPED)), number(1))
    rounded = b.add(size, b.add(odd, number((1 << DIGITS_DROPPED - 1) - 1)))
    normal = b.sub(b.lshr(rounded, number(DIGITS_DROPPED)), number(EXPONENT_DIFFERENCE))
    exact = b.bitcast(size, scaled.type)
    steps = b.bitcast(b.fadd(exact, splat(F32, ROUNDER, lanes)), bits.type)
    small = b.sub(steps, number(ROUNDER_BITS))
    is_small = b.fcmp_ordered("<", exact, splat(F32, FLOAT8_NORMAL, lanes))
    return b.or_(b.select(is_small, small, normal), b.and_(b.lshr(bits, number(24)), number(0x80)))
