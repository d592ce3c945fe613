"""What the decode and the prefill kernel do alike with a tile of keys: find it, load it, weigh it.

Owns how the keys of a tile are found in their blocks, how a head is cut into pieces whose widths are powers of two, and
the online softmax. Does not know which keys a query sees, or splits. Called by the kernels in triton_decode.py and
triton_prefill.py.
"""

import triton
import triton.language as tl

from llmcli_kernels.paged_attention.triton_widen import widen

# Scores start from it instead of -inf, whose difference with itself is NaN.
LOWEST: tl.constexpr = tl.constexpr(-1.0e30)


@triton.jit
def find_slots(
    table_ptr, head, key, last, HKV: tl.constexpr, BLOCK: tl.constexpr, RUN: tl.constexpr, T: tl.constexpr
):
    """Where keys key .. key+T-1 of a sequence lie: rows of the cache, int64 [T/RUN, 1] plus int32 [1, RUN].

    RUN neighbouring keys always lie in one block, so that its number is loaded and multiplied once and the offsets in
    it are constants. `key` is a multiple of RUN; numbers of blocks behind that of key `last`, which may be anything,
    are not used.
    """
    run = tl.arange(0, T // RUN) * RUN
    at = tl.minimum(key + run, last // RUN * RUN).to(tl.uint32)
    block = tl.load(table_ptr + at // BLOCK).to(tl.int64)
    first = block * (HKV * BLOCK) + head * BLOCK
    if BLOCK != RUN:
        first += at % BLOCK
    return first[:, None], tl.arange(0, RUN)[None, :]


@triton.jit
def row_offsets(first, row, ROW: tl.constexpr, T: tl.constexpr):
    """int64 [T]: offsets of the words of rows `first` + `row`, as `find_slots` gives them."""
    VECTOR: tl.constexpr = ROW & -ROW
    return tl.multiple_of(tl.reshape(first * ROW + row * ROW, (T,)), VECTOR)


@triton.jit
def load_operands(
    at,
    inside,
    PIECE: tl.constexpr,
    W1: tl.constexpr,
    W2: tl.constexpr,
    ROW: tl.constexpr,
    DIMENSION: tl.constexpr,
    STORAGE: tl.constexpr,
    CONVERT: tl.constexpr,
    dtype: tl.constexpr,
):
    """Piece 0 or 1 of the rows that start at `at`, words along DIMENSION: one operand of dtype, of 8-bit storage two.

    `at` and `inside` are a column or a row; where not inside, or behind a row's end, are zeros. None is inside
    everywhere.
    """
    FIRST: tl.constexpr = PIECE * W1
    WIDTH: tl.constexpr = W1 if PIECE == 0 else W2
    word = FIRST + tl.expand_dims(tl.arange(0, WIDTH), 1 - DIMENSION)
    if FIRST + WIDTH > ROW:
        mask = word < ROW if inside is None else inside & (word < ROW)
        words = tl.load(at + word, mask=mask, other=0)
    elif inside is None:
        words = tl.load(at + word)
    else:
        words = tl.load(at + word, mask=inside, other=0)
    if STORAGE == "plain":
        return (words,)
    else:
        return widen(words, STORAGE, CONVERT, dtype)


@triton.jit
def elements(INDEX: tl.constexpr, W1: tl.constexpr, W2: tl.constexpr, STEP: tl.constexpr):
    """Which elements of a head operand INDEX of its pieces has, STEP operands of each."""
    PIECE: tl.constexpr = INDEX // STEP
    WIDTH: tl.constexpr = W1 if PIECE == 0 else W2
    return PIECE * W1 * STEP + INDEX % STEP + STEP * tl.arange(0, WIDTH)


@triton.jit
def _value_exponents(at, inside):
    """The powers of two in the value scales at `at` [T]: their exponents, their inverses, and scale / power.

    Below 2⁻⁶⁰ the power stays and the last one falls, to 0 for rows of zeros. Scales are not read where not `inside`.
    """
    # The weights of a tile are taken times its value scales. That product may leave float16's range, so the
    # power of two goes into the exponent of the softmax, where the running maximum keeps the product below 2.
    scales = tl.load(at) if inside is None else tl.load(at, mask=inside, other=1.0)
    bits = tl.maximum(scales, 2.0**-60).to(tl.int32, bitcast=True) & 0x7F800000
    inverse = (0x7F000000 - bits).to(tl.float32, bitcast=True)
    exponent = ((bits >> 23) - 127).to(tl.float32)
    return exponent, inverse, scales * inverse


@triton.jit
def weigh(
    products,
    top,
    factor,
    cap,
    seen,
    inside,
    key_scales_at,
    value_scales_at,
    AXIS: tl.constexpr,
    dtype: tl.constexpr,
):
    """The online softmax of a tile's products of q and k, keys along AXIS, in base 2.

    Args:
        top: the highest score so far, of each query.
        factor, cap: as `score_factors` has them.
        seen: which products count, or None; inside: which keys some query sees, or None; where not, the cache may
            hold anything.
        key_scales_at, value_scales_at: [T] pointers to the scales of 8-bit storage, else None.

    Returns:
        (weights for the values as they are stored, in dtype; their float32 share of the sum of weights; the new top;
        what sums under the old one are to be multiplied by).
    """
    scores = products
    if key_scales_at is not None:
        scores *= tl.expand_dims(tl.load(key_scales_at) * factor, 1 - AXIS)
        exponent, inverse, mantissa = _value_exponents(value_scales_at, inside)
    elif cap is not None:
        scores *= factor
    if cap is not None:
        scores = _capped(scores, cap, dtype == tl.float32)
    if key_scales_at is not None:
        scores += tl.expand_dims(exponent, 1 - AXIS)
    if seen is not None:
        scores = tl.where(seen, scores, float("-inf"))

    highest = tl.max(scores, axis=AXIS)
    if key_scales_at is None and cap is None:
        new_top = tl.maximum(top, highest * factor)
        weights = tl.exp2(tl.fma(scores, factor, tl.expand_dims(-new_top, AXIS)))
    else:
        new_top = tl.maximum(top, highest)
        weights = tl.exp2(scores - tl.expand_dims(new_top, AXIS))
    fade = tl.exp2(top - new_top)
    if key_scales_at is None:
        return weights.to(dtype), weights, new_top, fade
    else:
        shares = weights * tl.expand_dims(inverse, 1 - AXIS)
        return (weights * tl.expand_dims(mantissa, 1 - AXIS)).to(dtype), shares, new_top, fade


@triton.jit
def _capped(s, cap, EXACT: tl.constexpr):
    """cap · tanh(s). Without EXACT with an absolute error of 2e-7 · cap, enough for 16-bit numbers."""
    t = 1.0 - 2.0 / (1.0 + tl.exp2(s * 2.8853900817779268))
    if EXACT:
        # A fit in s² for |s| < 0.6 with a relative error of 3e-9; the difference above cancels there.
        z = s * s
        fit = ((-0.00590582 * z + 0.02080534) * z - 0.05378667) * z + 0.13331958
        t = tl.where(tl.abs(s) < 0.6, s + s * z * (fit * z - 0.33333299), t)
    return t * cap
