"""Triton: the passes of sampling over all logits, each by many programs a row.

A program has one chunk of one row, in tiles of BLOCK tokens. `find_peaks` looks for the largest logit; `count_depths`
counts the tokens of rows with top-k or top-p by depth; `split_tokens` learns from the counts which bins the borders
of top-k and top-p are in, adds up what lies above, and lists the tokens inside. A row that does not need a pass costs
a look at its parameters. `sample` describes what is noted for the next pass.
"""

import triton
import triton.language as tl

from llmcli_kernels.sampling.triton_numbers import (
    BINS,
    CHUNKS,
    KEY_OF_MINUS_INFINITY,
    LARGEST_INT,
    TOP_MASS,
    bins_per_halving_of,
    depth_of,
    key_of,
    logit_of,
    mass_of,
    min_p_key,
    place_of,
    rate_of,
    top_of,
)

# More than rounding can move a bound, as its share and as one of the total.
SLACK: tl.constexpr = tl.constexpr(1e-4)
MARGIN: tl.constexpr = tl.constexpr(1e-6)


@triton.jit(do_not_specialize=["tiles"])
def find_peaks(
    logits_ptr,
    vocabulary,
    tiles,
    tops_ptr,
    bottoms_ptr,
    best_ptr,
    counts_ptr,
    totals_ptr,
    num_listed_ptr,
    BLOCK: tl.constexpr,
):
    """The largest logit of a chunk and its lowest id, and the smallest one above -inf; zero for what is counted later.

    NaN or +inf in the chunk makes the largest +inf.
    """
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    tops = tl.full([BLOCK], -float("inf"), tl.float32)
    bottoms = tl.full([BLOCK], float("inf"), tl.float32)
    best = tl.zeros([BLOCK], tl.int32)
    for tile in range(tiles):
        ids = (chunk * tiles + tile) * BLOCK + tl.arange(0, BLOCK)
        logits = tl.load(logits_ptr + row * vocabulary + ids, mask=ids < vocabulary, other=-float("inf"))
        best = tl.where(logits > tops, ids, best)
        tops = tl.where(logits > tops, logits, tops)
        tops = tl.where(logits == logits, tops, float("inf"))  # tl.max would pass NaN over
        bottoms = tl.where(logits > -float("inf"), tl.minimum(bottoms, logits), bottoms)
    top = tl.max(tops, axis=0)
    at = row * CHUNKS + chunk
    tl.store(tops_ptr + at, top)
    tl.store(bottoms_ptr + at, tl.min(bottoms, axis=0))
    tl.store(best_ptr + at, tl.min(tl.where(tops == top, best, LARGEST_INT), axis=0))
    if chunk == 0:
        tl.store(counts_ptr + row * BINS + tl.arange(0, BINS), tl.zeros([BINS], tl.int32))
        tl.store(totals_ptr + row, 0)
        tl.store(num_listed_ptr + row, 0)


@triton.jit(do_not_specialize=["tiles", "num_chunks"])
def count_depths(
    logits_ptr,
    vocabulary,
    tiles,
    num_chunks,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    tops_ptr,
    bottoms_ptr,
    counts_ptr,
    totals_ptr,
    BLOCK: tl.constexpr,
):
    """Add a chunk to the numbers of tokens in each bin of depth and to the mass of the row.

    Integers are added, so it does not matter which program is first.
    """
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    top = top_of(tops_ptr, row, num_chunks)
    temperature = tl.load(temperature_ptr + row)
    searched = (tl.load(top_k_ptr + row) > 0) | (tl.load(top_p_ptr + row) < 1.0)
    if searched & (temperature > 0.0) & (tl.abs(top) < float("inf")):
        rate = rate_of(temperature)
        bins_per_halving = bins_per_halving_of(bottoms_ptr, row, num_chunks, top, rate)
        counts = tl.zeros([BINS], tl.int32)
        masses = tl.zeros([BLOCK], tl.int64)
        for tile in range(tiles):
            ids = (chunk * tiles + tile) * BLOCK + tl.arange(0, BLOCK)
            logits = tl.load(logits_ptr + row * vocabulary + ids, mask=ids < vocabulary, other=-float("inf"))
            depths = depth_of(logits, top, rate)
            counts += tl.histogram(place_of(depths, bins_per_halving).to(tl.int32), BINS)
            masses += mass_of(depths)
        at = counts_ptr + row * BINS + tl.arange(0, BINS)
        tl.atomic_add(at, counts, mask=counts > 0, sem="relaxed")
        tl.atomic_add(totals_ptr + row, tl.sum(masses, axis=0), sem="relaxed")


@triton.jit(do_not_specialize=["tiles", "num_chunks"])
def split_tokens(
    logits_ptr,
    vocabulary,
    tiles,
    num_chunks,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    tops_ptr,
    bottoms_ptr,
    counts_ptr,
    totals_ptr,
    sure_masses_ptr,
    sure_counts_ptr,
    num_listed_ptr,
    listed_keys_ptr,
    listed_chunks_ptr,
    BLOCK: tl.constexpr,
):
    """The mass of the tokens of a chunk that are kept for sure, and the keys of those in doubt.

    Chunks add to the row's list in any order; the next pass only counts and adds.
    """
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    top = top_of(tops_ptr, row, num_chunks)
    temperature = tl.load(temperature_ptr + row)
    if (temperature > 0.0) & (tl.abs(top) < float("inf")):
        rate = rate_of(temperature)
        bins_per_halving = bins_per_halving_of(bottoms_ptr, row, num_chunks, top, rate)
        top_k, top_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row)
        min_p = tl.load(min_p_ptr + row)
        floor = tl.full([], KEY_OF_MINUS_INFINITY, tl.int32)
        if min_p > 0.0:
            floor = min_p_key(top, temperature, min_p)

        begin, end = tl.full([], BINS, tl.int32), tl.full([], 0, tl.int32)
        if (top_k > 0) | (top_p < 1.0):
            counts = tl.load(counts_ptr + row * BINS + tl.arange(0, BINS))
            total = tl.load(totals_ptr + row)
            begin, end = _bins_in_doubt(counts, total, top_k, top_p, bins_per_halving)
            above = tl.sum(tl.where(tl.arange(0, BINS) < begin, counts, 0), axis=0)
            tl.store(sure_counts_ptr + row, above, mask=chunk == 0)
            # Where min-p drops all that is in doubt, it alone decides.
            floor_place = place_of(depth_of(logit_of(floor), top, rate), bins_per_halving)
            end = tl.where(floor_place < begin, 0, end)

        masses = tl.zeros([BLOCK], tl.int64)
        for tile in range(tiles):
            ids = (chunk * tiles + tile) * BLOCK + tl.arange(0, BLOCK)
            logits = tl.load(logits_ptr + row * vocabulary + ids, mask=ids < vocabulary, other=-float("inf"))
            depths = depth_of(logits, top, rate)
            keys = key_of(logits)
            place = place_of(depths, bins_per_halving)
            masses += tl.where((place < begin) & (keys >= floor), mass_of(depths), 0)
            if begin < end:
                in_doubt = ((place >= begin) & (place < end)).to(tl.int32)
                number = tl.sum(in_doubt, axis=0)
                if number > 0:
                    first = tl.atomic_add(num_listed_ptr + row, number, sem="relaxed")
                    at = row * vocabulary + first + tl.cumsum(in_doubt, axis=0) - 1
                    tl.store(listed_keys_ptr + at, keys, mask=in_doubt > 0)
                    tl.store(listed_chunks_ptr + at, chunk.to(tl.int8), mask=in_doubt > 0)
        tl.store(sure_masses_ptr + row * CHUNKS + chunk, tl.sum(masses, axis=0))


@triton.jit
def _bins_in_doubt(counts, total, top_k, top_p, bins_per_halving):
    """Bins from begin to before end: top-k and top-p keep all tokens before, drop all after, and split these.

    The bin of the k-th token is known. What bins weigh is known up to the weights at their edges; taken from the top
    down and, with the total, from the bottom up, that leaves a few for top-p's border.
    """
    bins = tl.arange(0, BINS)
    counts = tl.where(bins < BINS - 1, counts, 0)
    kth = tl.sum((tl.cumsum(counts, axis=0) < top_k).to(tl.int32), axis=0)
    limited = (top_k > 0) & (kth < BINS - 1)  # else all tokens with mass are among the k

    # Of the bins before each, and of it and those after: the largest and the smallest weight they can have.
    near = counts * tl.exp2(-tl.div_rn(bins.to(tl.float32), bins_per_halving)) * (1.0 + SLACK)
    far = counts * tl.exp2(-tl.div_rn(bins.to(tl.float32) + 1.0, bins_per_halving)) * (1.0 - SLACK)
    weight = total.to(tl.float32) * (1.0 / TOP_MASS)
    most, least = tl.cumsum(near, axis=0) - near, tl.cumsum(far, axis=0) - far
    most_after, least_after = tl.sum(near, axis=0) - most, tl.sum(far, axis=0) - least
    most = tl.minimum(most, weight - least_after) + weight * MARGIN
    least = tl.maximum(least, weight - most_after) - weight * MARGIN

    most_left = tl.where(limited, tl.sum(tl.where(bins == kth + 1, most, 0.0), axis=0), weight)
    least_left = tl.where(limited, tl.sum(tl.where(bins == kth, least, 0.0), axis=0), weight)
    begin = tl.maximum(tl.sum((most < top_p * least_left).to(tl.int32), axis=0) - 1, 0)
    end = tl.minimum(tl.sum((least < top_p * most_left).to(tl.int32), axis=0), BINS - 1)
    begin, end = tl.where(top_p < 1.0, begin, BINS), tl.where(top_p < 1.0, end, 0)
    return tl.where(limited, tl.minimum(begin, kth), begin), tl.where(limited, kth + 1, end)
