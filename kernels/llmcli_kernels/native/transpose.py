"""Matrices of bits and of lanes turned in registers.

Knows no kernel and no layout. Used by the kernels that pack weights, and by attention for its keys.
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


def shuffle(e: Emit, x: Value, y: Value, order: list[int]) -> Value:
    return e.b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(order)), order))


def transpose_lanes(e: Emit, vectors: list[Value]) -> list[Value]:
    """8 vectors of 8 lanes of 32 bits, or 16 of 16: lane i of vector j becomes lane j of vector i.

    Pairs, then fours, of vectors are interleaved within 128 bits, each of which then has four vectors of one lane; then
    the 128 bits change places.
    """
    lanes = len(vectors)
    quads = range(lanes // 4)

    def within(x: Value, y: Value, order: tuple[int, ...]) -> Value:
        return shuffle(e, x, y, [4 * q + i % 4 + (lanes if i >= 4 else 0) for q in quads for i in order])

    parts: list[list[Value]] = []  # [four vectors][lane of four]
    for first in range(0, lanes, 4):
        a, b, c, d = vectors[first : first + 4]
        low, low2 = (within(x, y, (0, 4, 1, 5)) for x, y in ((a, b), (c, d)))
        high, high2 = (within(x, y, (2, 6, 3, 7)) for x, y in ((a, b), (c, d)))
        sides = ((low, low2), (high, high2))
        parts.append([within(x, y, order) for x, y in sides for order in ((0, 1, 4, 5), (2, 3, 6, 7))])
    by_place = [_transpose_quads(e, [part[k] for part in parts]) for k in range(4)]
    return [by_place[lane % 4][lane // 4] for lane in range(lanes)]


def _transpose_quads(e: Emit, vectors: list[Value]) -> list[Value]:
    """As `transpose_lanes`, with 128 bits for a lane; two or four vectors."""

    def pick(x: Value, y: Value, quads: tuple[int, ...]) -> Value:
        return shuffle(e, x, y, [4 * q + i for q in quads for i in range(4)])

    if len(vectors) == 2:
        return [pick(*vectors, quads) for quads in ((0, 2), (1, 3))]
    low, high = pick(*vectors[:2], (0, 1, 4, 5)), pick(*vectors[:2], (2, 3, 6, 7))
    low2, high2 = pick(*vectors[2:], (0, 1, 4, 5)), pick(*vectors[2:], (2, 3, 6, 7))
    sides = ((low, low2), (high, high2))
    return [pick(x, y, quads) for x, y in sides for quads in ((0, 2, 4, 6), (1, 3, 5, 7))]
