"""Prefill attention over paged keys (FlashAttention-2): a program has some queries of a sequence with all the heads
that share one head of keys.

Owns the kernel, its launch and the list of tiles of queries. Does not know which sequences come here; called by
triton_attention.py.

    scores [M, T] = q [M, D] · keys [T, D]ᵀ          out [M, D] += weights [M, T] · values [T, D]

with M rows of M / G queries and G heads. Tiles of keys that no query of the program sees are not visited, and only
those that some query does not see whole are masked: they come last, those at the window's edge first.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmcli_kernels.aot import AotVariant
from llmcli_kernels.paged_attention.triton_call import AotCase, Call, Heads, aot_variant, loop_stages
from llmcli_kernels.paged_attention.triton_tiles import (
    LOWEST,
    elements,
    find_slots,
    load_operands,
    row_offsets,
    weigh,
)
from llmcli_kernels.tuning import TuningTable


@dataclass(frozen=True)
class PrefillConfig:
    """How the kernel is launched for some sizes.

    Attributes:
        rows: queries times heads of a program.
        tile: keys at a time.
        num_stages: one more than the tiles of keys and values on their way.
    """

    rows: int
    tile: int
    num_warps: int
    num_stages: int


def prefill_config(table: TuningTable, heads: Heads, has_softcap: bool) -> PrefillConfig:
    row = table.pick(
        "attention_prefill", head_size=heads.head_size, kv_bytes=heads.kv_bytes, capped=int(has_softcap)
    )
    rows = max(row["BM"], triton.next_power_of_2(heads.group))
    return PrefillConfig(rows, row["T"], row["num_warps"], row["num_stages"])


def query_tiles(sequences: Iterable[tuple[int, int, int]], tokens: int) -> list[tuple[int, int]]:
    """(sequence, first query) of each program's queries, those that see the most keys first.

    Args:
        sequences: (number, queries, kv_len) of each.
        tokens: queries of a program.
    """
    tiles = [
        (kv_len - queries + min(first + tokens, queries), number, first)
        for number, queries, kv_len in sequences
        for first in range(0, queries, tokens)
    ]
    return [(number, first) for _, number, first in sorted(tiles, key=lambda tile: -tile[0])]


def prefill(call: Call, tiles: Tensor, config: PrefillConfig) -> None:
    """Attention of the queries in `tiles`, int32 [tiles, 2] as `query_tiles` lists them: writes their rows of out."""
    _prefill_kernel[(call.heads.num_kv_heads, tiles.shape[0])](
        **call.arguments(),
        tiles_ptr=tiles,
        out_ptr=call.out,
        **call.heads.constants(config.tile),
        M=config.rows,
        STAGES=loop_stages(config.num_stages),
        num_warps=config.num_warps,
    )


def aot_variants(capability: tuple[int, int], table: TuningTable) -> list[AotVariant]:
    """Every row of the table, dtype and storage; head sizes of one and of two pieces."""
    bf16, int8, fp8 = torch.bfloat16, torch.int8, torch.float8_e4m3fn
    cases = [AotCase(storage=storage) for storage in (None, int8, fp8)]
    cases += [AotCase(head_size=size) for size in (64, 80, 256)]
    cases += [AotCase(dtype=bf16), AotCase(dtype=bf16, has_window=True, has_softcap=True)]
    cases += [AotCase(head_size=256, storage=int8)]
    cases += [AotCase(head_size=size, dtype=torch.float32) for size in (64, 128)]
    return [_prefill_variant(case, capability, table) for case in cases]


def _prefill_variant(case: AotCase, capability: tuple[int, int], table: TuningTable) -> AotVariant:
    heads = case.heads(capability)
    config = prefill_config(table, heads, case.has_softcap)
    return aot_variant(
        _prefill_kernel,
        f"attention prefill {case}, {config.rows} rows, {config.tile} keys",
        case.signature() | {"tiles_ptr": "*i32", "out_ptr": case.signature()["q_ptr"]},
        heads.constants(config.tile) | {"M": config.rows, "STAGES": loop_stages(config.num_stages)},
        config.num_warps,
    )


# Compiled once for all steps: these change from step to step.
@triton.jit(do_not_specialize=["table_stride", "window"])
def _prefill_kernel(
    q_ptr,
    q_stride_token,
    q_stride_head,
    keys_ptr,
    values_ptr,
    key_scales_ptr,
    value_scales_ptr,
    tiles_ptr,
    starts_ptr,
    lens_ptr,
    tables_ptr,
    table_stride,
    out_ptr,
    factor,
    cap,
    window,
    HKV: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    W1: tl.constexpr,
    W2: tl.constexpr,
    BLOCK: tl.constexpr,
    RUN: tl.constexpr,
    T: tl.constexpr,
    STORAGE: tl.constexpr,
    CONVERT: tl.constexpr,
    M: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Head of keys pid 0 of the queries of tile pid 1.

    q, out [T, HQ, D]; keys, values [blocks, HKV, BLOCK, D] of q's type, or int16 [.., D / 2] with float32 scales
    [blocks, HKV, BLOCK]. factor and cap as `score_factors` has them.
    """
    QUANTIZED: tl.constexpr = STORAGE != "plain"
    STEP: tl.constexpr = 2 if QUANTIZED else 1  # elements of a word
    OPERANDS: tl.constexpr = STEP if W2 == 0 else 2 * STEP
    TOKENS: tl.constexpr = M // G
    head = tl.program_id(0)
    sequence = tl.load(tiles_ptr + tl.program_id(1) * 2)
    first_query = tl.load(tiles_ptr + tl.program_id(1) * 2 + 1)
    query_start = tl.load(starts_ptr + sequence)
    num_queries = tl.load(starts_ptr + sequence + 1) - query_start
    length = tl.load(lens_ptr + sequence)

    row = tl.arange(0, M)
    token = first_query + row // G
    real = (row // G < TOKENS) & (token < num_queries)
    token = tl.minimum(token, num_queries - 1)
    position = length - num_queries + token
    first = length - num_queries + first_query
    end = length - num_queries + tl.minimum(first_query + TOKENS, num_queries)

    q_head = head * G + row % G
    q_at = q_ptr + ((query_start + token).to(tl.int64) * q_stride_token + q_head * q_stride_head)[:, None]
    q = ()
    acc = ()
    for index in tl.static_range(OPERANDS):
        element = elements(index, W1, W2, STEP)[None, :]
        q += (tl.load(q_at + element, mask=element < D, other=0.0),)
        acc += (tl.zeros((M, element.shape[1]), tl.float32),)
    top = tl.full((M,), LOWEST, tl.float32)
    total = tl.zeros((M,), tl.float32)

    # Tiles from `start` on; of them left .. right-1 are seen whole by every query.
    if window is None:
        seen_from = 0
        start = 0
        left = 0
        right = (first + 1) // T
    else:
        seen_from = tl.maximum(first - window + 1, 0)
        start = seen_from // RUN * RUN
        right = (first + 1 - start) // T
        left = tl.minimum(tl.cdiv(tl.maximum(end - window - start, 0), T), right)
    num_edges = left + tl.cdiv(end - start, T) - right
    cache = (keys_ptr, values_ptr, key_scales_ptr, value_scales_ptr)
    limits = (seen_from, end, position, window)
    table_ptr = tables_ptr + sequence.to(tl.int64) * table_stride
    for tile in tl.range(left, right, num_stages=STAGES):
        key = start + tile * T
        slots = find_slots(table_ptr, head, key, end - 1, HKV, BLOCK, RUN, T)
        top, total, acc = _attend(
            q,
            (top, total, acc),
            cache,
            slots,
            key,
            limits,
            factor,
            cap,
            False,
            D,
            W1,
            W2,
            T,
            STORAGE,
            CONVERT,
        )
    for edge in tl.range(0, num_edges, num_stages=STAGES):
        key = start + tl.where(edge < left, edge, edge - left + right) * T
        slots = find_slots(table_ptr, head, key, end - 1, HKV, BLOCK, RUN, T)
        top, total, acc = _attend(
            q, (top, total, acc), cache, slots, key, limits, factor, cap, True, D, W1, W2, T, STORAGE, CONVERT
        )

    share = (1.0 / total)[:, None]
    out_at = out_ptr + (((query_start + token).to(tl.int64) * (HKV * G) + q_head) * D)[:, None]
    for index in tl.static_range(OPERANDS):
        element = elements(index, W1, W2, STEP)[None, :]
        part = (acc[index] * share).to(out_ptr.dtype.element_ty)
        tl.store(out_at + element, part, mask=real[:, None] & (element < D))


@triton.jit
def _attend(
    q,
    state,
    cache,
    slots,
    first_key,
    limits,
    factor,
    cap,
    AT_EDGE: tl.constexpr,
    D: tl.constexpr,
    W1: tl.constexpr,
    W2: tl.constexpr,
    T: tl.constexpr,
    STORAGE: tl.constexpr,
    CONVERT: tl.constexpr,
):
    """`state` (highest score, sum of weights, operands of the result) after T more keys from first_key on."""
    QUANTIZED: tl.constexpr = STORAGE != "plain"
    STEP: tl.constexpr = 2 if QUANTIZED else 1
    ROW: tl.constexpr = D // STEP
    PIECES: tl.constexpr = 1 if W2 == 0 else 2
    dtype: tl.constexpr = q[0].dtype
    top, total, acc = state
    keys_ptr, values_ptr, key_scales_ptr, value_scales_ptr = cache
    seen_from, end, position, window = limits
    first_slot, offset = slots
    at = row_offsets(first_slot, offset, ROW, T)
    key = first_key + tl.arange(0, T)
    inside = None
    if AT_EDGE:
        inside = key < end
        if window is not None:
            inside &= key >= seen_from

    products = tl.zeros((q[0].shape[0], T), tl.float32)
    for piece in tl.static_range(PIECES):
        k = load_operands(keys_ptr + at[None, :], None, piece, W1, W2, ROW, 0, STORAGE, CONVERT, dtype)
        for i in tl.static_range(STEP):
            products = tl.dot(q[piece * STEP + i], k[i], products, input_precision="ieee")
    key_scales_at = None
    value_scales_at = None
    if QUANTIZED:
        slot = tl.reshape(first_slot + offset, (T,))
        key_scales_at = key_scales_ptr + slot
        value_scales_at = value_scales_ptr + slot
    seen = None
    if AT_EDGE:
        seen = key[None, :] <= position[:, None]
        if window is not None:
            seen &= key[None, :] > (position - window)[:, None]
    weights, shares, new_top, fade = weigh(
        products, top, factor, cap, seen, inside, key_scales_at, value_scales_at, 1, dtype
    )
    total = tl.fma(total, fade, tl.sum(shares, axis=1))

    inside_row = inside[:, None] if AT_EDGE else None
    mixed = ()
    for piece in tl.static_range(PIECES):
        v = load_operands(
            values_ptr + at[:, None], inside_row, piece, W1, W2, ROW, 1, STORAGE, CONVERT, dtype
        )
        for i in tl.static_range(STEP):
            faded = acc[piece * STEP + i] * fade[:, None]
            mixed += (tl.dot(weights, v[i], faded, input_precision="ieee"),)
    return new_top, total, mixed
