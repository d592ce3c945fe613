"""Triton: the numbers that sampling computes with; every pass computes them alike.

Owns three views of a logit: its key, an integer in the same order; its depth, how many halvings its weight lies below
the largest one; its mass, the weight as an integer. Sums of masses are exact, so neither their order nor the cut of
the work into programs changes a result. Owns also the bins of depth, and min-p as a key.
"""

import triton
import triton.language as tl

CHUNKS: tl.constexpr = tl.constexpr(128)  # of a row at most: the stride of what passes note for each
BINS: tl.constexpr = tl.constexpr(256)  # of depth; the last one is for tokens without mass
TOP_MASS: tl.constexpr = tl.constexpr(2.0**42)  # of the largest weight: sums of 2²¹ tokens fit in 63 bits
DEEPEST: tl.constexpr = tl.constexpr(43.0)  # masses are 0 from here on
LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
KEY_OF_MINUS_INFINITY: tl.constexpr = tl.constexpr(-0x7F800001)
LARGEST_INT: tl.constexpr = tl.constexpr(0x7FFFFFFF)


@triton.jit
def key_of(logits):
    """int32 in the order of float32; both zeros have key 0."""
    bits = tl.where(logits == 0.0, 0.0, logits).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def logit_of(keys):
    return (keys ^ ((keys >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def rate_of(temperature):
    """Halvings of weight for each unit of logit."""
    return tl.minimum(tl.div_rn(LOG2_E, temperature), 1e30)


@triton.jit
def depth_of(logits, top, rate):
    """log2 of the largest weight over this one. Ends in a product, as mass_of does: nothing to fuse with a sum."""
    return (top - logits) * rate


@triton.jit
def mass_of(depths):
    """int64: weights in units of 2⁻⁴² of the largest one, rounded down."""
    return (tl.exp2(-depths) * TOP_MASS).to(tl.int64)


@triton.jit
def top_of(tops_ptr, row, num_chunks):
    """The largest logit of a row; infinite where nothing can be drawn."""
    chunk = tl.arange(0, CHUNKS)
    tops = tl.load(tops_ptr + row * CHUNKS + chunk, mask=chunk < num_chunks, other=-float("inf"))
    return tl.max(tops, axis=0)


@triton.jit
def bins_per_halving_of(bottoms_ptr, row, num_chunks, top, rate):
    """Spreads the bins over the depths that the tokens with mass in a row have."""
    chunk = tl.arange(0, CHUNKS)
    bottoms = tl.load(bottoms_ptr + row * CHUNKS + chunk, mask=chunk < num_chunks, other=float("inf"))
    deepest = tl.minimum(depth_of(tl.min(bottoms, axis=0), top, rate), DEEPEST)
    return tl.div_rn(BINS - 1.01, tl.maximum(deepest, 1e-30))


@triton.jit
def place_of(depths, bins_per_halving):
    """Where a token lies in the row of bins: in the one of this number without its fraction."""
    return tl.minimum(depths * bins_per_halving, BINS - 1.0)


@triton.jit
def min_p_key(top, temperature, min_p):
    """The smallest key that min-p keeps: a weight >= min_p is a logit >= top + temperature · ln(min_p); in float64."""
    wide = top.to(tl.float64)
    edge = tl.minimum(wide + temperature.to(tl.float64) * tl.log(min_p.to(tl.float64)), wide)
    near = edge.to(tl.float32)
    return key_of(near) + tl.where(near.to(tl.float64) < edge, 1, 0)
