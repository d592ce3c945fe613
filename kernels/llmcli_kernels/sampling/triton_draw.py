"""Triton: the last pass of sampling, one program a row: exact borders, then the draw.

The borders of top-k and top-p are found by bisection over the keys of the tokens in doubt, which `split_tokens`
listed. The draw looks for the chunk in which the running mass of the kept tokens passes its goal, then for the token
there. Only counts and exact sums of integers are compared.
"""

import triton
import triton.language as tl

from llmcli_kernels.sampling.triton_numbers import (
    CHUNKS,
    KEY_OF_MINUS_INFINITY,
    LARGEST_INT,
    depth_of,
    key_of,
    logit_of,
    mass_of,
    min_p_key,
    rate_of,
    top_of,
)


@triton.jit(do_not_specialize=["chunk_size", "num_chunks"])
def draw_tokens(
    logits_ptr,
    vocabulary,
    chunk_size,
    num_chunks,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    uniforms_ptr,
    tops_ptr,
    best_ptr,
    totals_ptr,
    sure_masses_ptr,
    sure_counts_ptr,
    num_listed_ptr,
    listed_keys_ptr,
    listed_chunks_ptr,
    ids_ptr,
    finite_ptr,
    BLOCK: tl.constexpr,
):
    """The id of row pid, and whether the row is finite."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, CHUNKS)
    here = chunk < num_chunks
    at = row * CHUNKS + chunk
    top = top_of(tops_ptr, row, num_chunks)
    finite = tl.abs(top) < float("inf")
    tl.store(finite_ptr + row, finite)
    temperature = tl.load(temperature_ptr + row)
    if finite & (temperature > 0.0):
        rate = rate_of(temperature)
        keys_ptr = listed_keys_ptr + row * vocabulary
        chunks_ptr = listed_chunks_ptr + row * vocabulary
        num_listed = tl.load(num_listed_ptr + row)
        sure_masses = tl.load(sure_masses_ptr + at, mask=here, other=0)

        floor, quota = tl.full([], KEY_OF_MINUS_INFINITY, tl.int32), tl.full([], LARGEST_INT, tl.int32)
        min_p = tl.load(min_p_ptr + row)
        if min_p > 0.0:
            floor = min_p_key(top, temperature, min_p)
        if num_listed > 0:
            top_k, top_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row)
            top_k -= tl.load(sure_counts_ptr + row)
            sure_mass = tl.sum(sure_masses, axis=0)
            total = tl.load(totals_ptr + row)
            border, border_quota = _border(
                keys_ptr, num_listed, top_k, top_p, sure_mass, total, top, rate, BLOCK
            )
            quota = tl.where(border < floor, LARGEST_INT, border_quota)
            floor = tl.maximum(border, floor)
        kept, _ = _kept(keys_ptr, chunks_ptr, num_listed, CHUNKS, floor, quota, top, rate, BLOCK)
        mass = kept + tl.sum(sure_masses, axis=0)
        goal = (tl.load(uniforms_ptr + row).to(tl.float64) * mass.to(tl.float64)).to(tl.int64)
        goal = tl.minimum(goal, mass - 1)

        # In which chunk the running mass passes the goal: between the cases that all tokens in doubt which are kept
        # come first, and that they come last.
        running = tl.cumsum(sure_masses, axis=0)
        low = tl.sum((here & (running + kept <= goal)).to(tl.int32), axis=0)
        high = tl.minimum(tl.sum((here & (running <= goal)).to(tl.int32), axis=0), num_chunks - 1)
        while low < high:
            middle = (low + high) // 2
            mass, _ = _kept(keys_ptr, chunks_ptr, num_listed, middle + 1, floor, quota, top, rate, BLOCK)
            mass += tl.sum(tl.where(chunk <= middle, sure_masses, 0), axis=0)
            low, high = tl.where(mass > goal, low, middle + 1), tl.where(mass > goal, middle, high)

        mass, ties = _kept(keys_ptr, chunks_ptr, num_listed, low, floor, quota, top, rate, BLOCK)
        mass += tl.sum(tl.where(chunk < low, sure_masses, 0), axis=0)
        start = low * chunk_size
        end = tl.minimum(start + chunk_size, vocabulary)
        row_ptr = logits_ptr + row * vocabulary
        token = _token(row_ptr, start, end, floor, quota, goal - mass, ties, top, rate, BLOCK)
        tl.store(ids_ptr + row, token.to(tl.int64))
    else:
        tops = tl.load(tops_ptr + at, mask=here, other=-float("inf"))
        best = tl.load(best_ptr + at, mask=here & (tops == top), other=LARGEST_INT)
        tl.store(ids_ptr + row, tl.where(finite, tl.min(best, axis=0), 0).to(tl.int64))


@triton.jit
def _border(keys_ptr, num_listed, top_k, top_p, sure_mass, total, top, rate, BLOCK: tl.constexpr):
    """The smallest key that is kept, and of how many tokens that have it, lowest ids first.

    Args:
        top_k: less the tokens kept for sure; the limit is off where the listed ones are fewer, or it is not positive.
        total: mass of the row, of which top-p keeps its share unless top-k leaves less.
    """
    key, quota = tl.full([], KEY_OF_MINUS_INFINITY, tl.int32), tl.full([], LARGEST_INT, tl.int32)
    if (top_k > 0) & (num_listed >= top_k):
        key = _reaching(keys_ptr, num_listed, top_k, top, rate, False, BLOCK)
        _, mass = _at_least(keys_ptr, num_listed, key, top, rate, True, BLOCK)
        total = sure_mass + mass
    if top_p < 1.0:
        share = top_p.to(tl.float64) * total.to(tl.float64)
        goal = share.to(tl.int64)
        goal = tl.maximum(goal + tl.where(goal.to(tl.float64) < share, 1, 0), 1) - sure_mass
        key = _reaching(keys_ptr, num_listed, goal, top, rate, True, BLOCK)
        _, mass = _at_least(keys_ptr, num_listed, key + 1, top, rate, True, BLOCK)
        each = mass_of(depth_of(logit_of(key), top, rate))
        quota = ((goal - mass + each - 1) // each).to(tl.int32)
    return key, quota


@triton.jit
def _reaching(keys_ptr, num_listed, goal, top, rate, BY_MASS: tl.constexpr, BLOCK: tl.constexpr):
    """The largest listed key that with all larger ones reaches a number of tokens, or a mass."""
    low, high = _extremes(keys_ptr, num_listed, LARGEST_INT, BLOCK)
    # low reaches the goal, high + 1 does not.
    from_low, above_high = num_listed, tl.zeros([], tl.int32)
    while (low < high) & (from_low - above_high > 1):
        middle = (low | high) - ((low ^ high) >> 1)  # (low + high) / 2 rounded up, without the sum
        count, mass = _at_least(keys_ptr, num_listed, middle, top, rate, BY_MASS, BLOCK)
        reached = mass >= goal if BY_MASS else count >= goal
        low, high = tl.where(reached, middle, low), tl.where(reached, high, middle - 1)
        from_low, above_high = tl.where(reached, count, from_low), tl.where(reached, above_high, count)
    _, key = _extremes(keys_ptr, num_listed, high, BLOCK)
    return key


@triton.jit
def _extremes(keys_ptr, num_listed, at_most, BLOCK: tl.constexpr):
    """The smallest listed key, and the largest up to a limit."""
    smallest = tl.full([BLOCK], LARGEST_INT, tl.int32)
    largest = tl.full([BLOCK], KEY_OF_MINUS_INFINITY, tl.int32)
    for start in range(0, num_listed, BLOCK):
        place = start + tl.arange(0, BLOCK)
        keys = tl.load(keys_ptr + place, mask=place < num_listed, other=LARGEST_INT)
        smallest = tl.minimum(smallest, keys)
        largest = tl.where((place < num_listed) & (keys <= at_most), tl.maximum(largest, keys), largest)
    return tl.min(smallest, axis=0), tl.max(largest, axis=0)


@triton.jit
def _at_least(keys_ptr, num_listed, floor, top, rate, WITH_MASS: tl.constexpr, BLOCK: tl.constexpr):
    """How many listed tokens have a key of at least floor, and, if it is asked for, their mass."""
    counts = tl.zeros([BLOCK], tl.int32)
    masses = tl.zeros([BLOCK], tl.int64)
    for start in range(0, num_listed, BLOCK):
        place = start + tl.arange(0, BLOCK)
        keys = tl.load(keys_ptr + place, mask=place < num_listed, other=KEY_OF_MINUS_INFINITY)
        counts += (keys >= floor).to(tl.int32)
        if WITH_MASS:
            masses += tl.where(keys >= floor, mass_of(depth_of(logit_of(keys), top, rate)), 0)
    return tl.sum(counts, axis=0), tl.sum(masses, axis=0)


@triton.jit
def _kept(keys_ptr, chunks_ptr, num_listed, end, floor, quota, top, rate, BLOCK: tl.constexpr):
    """Of the listed tokens in chunks before end, the mass of the kept ones and the number of those with key floor."""
    ties = tl.zeros([BLOCK], tl.int32)
    masses = tl.zeros([BLOCK], tl.int64)
    for start in range(0, num_listed, BLOCK):
        place = start + tl.arange(0, BLOCK)
        keys = tl.load(keys_ptr + place, mask=place < num_listed, other=KEY_OF_MINUS_INFINITY)
        chunks = tl.load(chunks_ptr + place, mask=place < num_listed, other=0).to(tl.int32)
        ties += ((keys == floor) & (chunks < end)).to(tl.int32)
        above = (keys > floor) & (chunks < end)
        masses += tl.where(above, mass_of(depth_of(logit_of(keys), top, rate)), 0)
    num_ties = tl.sum(ties, axis=0)
    each = mass_of(depth_of(logit_of(floor), top, rate))
    return tl.sum(masses, axis=0) + tl.minimum(num_ties, quota) * each, num_ties


@triton.jit
def _token(logits_ptr, start, end, floor, quota, goal, ties, top, rate, BLOCK: tl.constexpr):
    """The lowest id in [start, end) at which the running mass of kept tokens passes the goal.

    Args:
        ties: how many tokens before start have the key floor.
    """
    token = end
    while (start < end) & (token == end):
        ids = start + tl.arange(0, BLOCK)
        logits = tl.load(logits_ptr + ids, mask=ids < end, other=-float("inf"))
        keys = key_of(logits)
        tied = (keys == floor).to(tl.int32)
        kept = (keys > floor) | ((tied > 0) & (ties + tl.cumsum(tied, axis=0) <= quota))
        masses = tl.where(kept, mass_of(depth_of(logits, top, rate)), 0)
        token = tl.min(tl.where(tl.cumsum(masses, axis=0) > goal, ids, end), axis=0)
        goal -= tl.sum(masses, axis=0)
        ties += tl.sum(tied, axis=0)
        start += BLOCK
    return token
