"""Matrices of bits and of lanes turned in registers: how weights change their places.

Knows no kernel and no layout. Used by the kernels that pack weights.
"""

from llvmlite import ir

from llmcli_kernels.native.emit import I32, Emit, Value, splat

LOW_BITS = {4: 0x0F0F0F0F, 8: 0x00FF00FF, 16: 0x0000FFFF}


def exchange(e: Emit, x: Value, y: Value, bits: int) -> tuple[Value, Value]:
    """The lower fields of x and y side by side, and the upper ones; fields of 4, 8 or 16 bits, pairwise in each lane.

    With nibbles, a byte of x that is ab in hexadecimal and one of y that is cd become db and ca.
    """
    b, lanes = e.b, x.type.count
    shift, low = splat(I32, bits, lanes), splat(I32, LOW_BITS[bits], lanes)
    lower = b.or_(b.and_(x, low), b.shl(b.and_(y, low), shift))
    upper = b.or_(b.and_(b.lshr(x, shift), low), b.and_(y, b.not_(low)))
    return lower, upper


def transpose_bytes(e: Emit, vectors: list[Value]) -> list[Value]:
    """Four vectors of int32: byte i of vector j becomes byte j of vector i, in each lane."""
    one, two, three, four = vectors
    (one, three), (two, four) = exchange(e, one, three, 16), exchange(e, two, four, 16)
    return [*exchange(e, one, two, 8), *exchange(e, three, four, 8)]


def transpose_lanes(e: Emit, vectors: list[Value]) -> list[Value]:
    """2^n vectors of 2^n int32: lane i of vector j becomes lane j of vector i."""
    vectors, lanes = list(vectors), len(vectors)
    apart = lanes // 2
    while apart:
        kept = [lane if not lane & apart else lanes + lane - apart for lane in range(lanes)]
        moved = [lane + apart if not lane & apart else lanes + lane for lane in range(lanes)]
        for i in (i for i in range(lanes) if not i & apart):
            x, y = vectors[i], vectors[i + apart]
            vectors[i], vectors[i + apart] = (
                e.b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, lanes), places))
                for places in (kept, moved)
            )
        apart //= 2
    return vectors
