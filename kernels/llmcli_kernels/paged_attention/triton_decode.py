"""Split-KV decode attention (Flash-Decoding) for sequences with few queries: two launches, no atomics.

For sequences of one query it can do the work of `rope_kv_write` as well: every program rotates the q that it needs,
and the one with the last tile of keys writes the new key and value first. That saves a launch, and q's way through
memory.

Owns the kernels, their launch and the number of splits. Does not know how a step's sequences are sorted; called by
triton_attention.py.

A program has one head of keys of one sequence, and some of its tiles. The query heads that share those keys, times
the queries of the sequence, are the columns of one narrow operand, padded to a power of two; keys and values are the
left operands, whose many rows fill the tensor cores:

    scores [T, C] = keys [T, D] · q [D, C]          out [D, C] += values [T, D]ᵀ · weights [T, C]

The grid depends on nothing that is on the device, and lengths, starts and block tables are read there, so a captured
graph can be replayed with other ones. A split without work returns at once; the second launch works out from the same
numbers which ones had work, and adds them up in a fixed order.
"""

from dataclasses import dataclass
from typing import Any

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
from llmcli_kernels.rope_kv_write.triton_rope_kv_write import (
    inverse_rms,
    paired_with,
    rotated,
    write_entry,
)
from llmcli_kernels.triton_activations import added_up
from llmcli_kernels.tuning import TuningTable

NARROWEST, WIDEST, WIDEST_FLOAT32 = 8, 32, 8  # columns of a program
COMBINED_AT_ONCE = 16  # splits
COMBINE_WARPS = 4


@dataclass(frozen=True, eq=False)
class DecodeLaunch:
    """Sequences of a step that one launch is for.

    Attributes:
        chosen: int32 on the device, their numbers. One whose length on the device is 0 gets zeros.
        max_queries: that one of them has.
        longest: kv_len of one of them.
    """

    chosen: Tensor
    max_queries: int
    longest: int


@dataclass(frozen=True)
class DecodeConfig:
    """How the kernel is launched for some sizes.

    Attributes:
        columns: of the narrow operand.
        tile: keys at a time.
        num_stages: one more than the tiles of keys and values on their way.
    """

    columns: int
    tile: int
    num_warps: int
    num_stages: int
    programs_per_sm: int


def decode_config(table: TuningTable, heads: Heads, max_queries: int) -> DecodeConfig:
    widest = WIDEST_FLOAT32 if heads.dtype == torch.float32 else WIDEST
    columns = min(max(triton.next_power_of_2(max_queries * heads.group), NARROWEST), widest)
    row = table.pick("attention_decode", head_size=heads.head_size, columns=columns, kv_bytes=heads.kv_bytes)
    return DecodeConfig(columns, row["T"], row["num_warps"], row["num_stages"], row["programs_per_sm"])


def num_programs(config: DecodeConfig, heads: Heads, launch: DecodeLaunch) -> int:
    """Of a launch without splits."""
    blocks = triton.cdiv(launch.max_queries * heads.group, config.columns)
    return launch.chosen.shape[0] * heads.num_kv_heads * blocks


def num_splits(config: DecodeConfig, programs: int, num_sms: int, keys: int) -> int:
    """How many parts the keys of each sequence, at most `keys`, are cut into; programs are those without splits."""
    wanted = triton.cdiv(config.programs_per_sm * num_sms, programs)
    return max(1, min(wanted, triton.cdiv(keys, config.tile)))


def decode(call: Call, launch: DecodeLaunch, config: DecodeConfig, splits: int) -> None:
    """Attention of the sequences of a launch: writes their rows of call.out, and with call.unrotated the cache."""
    heads, out = call.heads, call.out
    num_chosen = launch.chosen.shape[0]
    grid = (num_chosen, num_programs(config, heads, launch) // num_chosen, splits)
    parts, sums = out, None
    if splits > 1:
        rows = num_chosen * launch.max_queries * heads.num_heads
        parts = torch.empty(rows, splits, heads.head_size, dtype=torch.float32, device=out.device)
        sums = torch.empty(rows, splits, dtype=torch.float32, device=out.device)
    arguments, constants = call.arguments(), heads.constants(config.tile)
    _split_kernel[grid](
        **arguments,
        **call.rotation(),
        chosen_ptr=launch.chosen,
        parts_ptr=parts,
        sums_ptr=sums,
        max_queries=launch.max_queries,
        **constants,
        C=config.columns,
        STAGES=loop_stages(config.num_stages),
        num_warps=config.num_warps,
    )
    if splits > 1:
        _combine_kernel[(num_chosen, launch.max_queries * heads.num_heads)](
            parts_ptr=parts,
            sums_ptr=sums,
            chosen_ptr=launch.chosen,
            starts_ptr=arguments["starts_ptr"],
            lens_ptr=arguments["lens_ptr"],
            out_ptr=out,
            max_queries=launch.max_queries,
            splits=splits,
            window=call.sliding_window,
            **_combine_constants(heads, constants),
            num_warps=COMBINE_WARPS,
        )


def _combine_constants(heads: Heads, constants: dict[str, Any]) -> dict[str, Any]:
    return {
        "HQ": heads.num_heads,
        "D": heads.head_size,
        "PADDED_D": triton.next_power_of_2(heads.head_size),
        "T": constants["T"],
        "RUN": constants["RUN"],
        "AT_ONCE": COMBINED_AT_ONCE,
    }


def aot_variants(capability: tuple[int, int], table: TuningTable) -> list[AotVariant]:
    """Every row of the table, dtype and storage; head sizes of one and of two pieces."""
    fp16, bf16, int8, fp8 = torch.float16, torch.bfloat16, torch.int8, torch.float8_e4m3fn
    cases = [AotCase(dtype=dtype, storage=storage) for dtype in (fp16, bf16) for storage in (None, int8, fp8)]
    cases += [AotCase(head_size=64, storage=storage) for storage in (None, int8, fp8)]
    cases += [AotCase(head_size=size) for size in (80, 96, 256)]
    cases += [AotCase(head_size=80, storage=fp8), AotCase(head_size=256, storage=int8)]
    cases += [AotCase(head_size=size, max_queries=queries) for size in (128, 256) for queries in (4, 8)]
    cases += [
        AotCase(max_queries=8, storage=fp8),
        AotCase(splits=False),
        AotCase(head_size=256, dtype=bf16, has_window=True, has_softcap=True),
        AotCase(dtype=torch.float32),
        AotCase(head_size=64, dtype=torch.float32),
    ]
    cases += [
        AotCase(dtype=dtype, storage=storage, summands=4)
        for dtype in (fp16, bf16)
        for storage in (None, int8, fp8)
    ]
    cases += [AotCase(summands=summands, splits=summands > 1, has_norm=True) for summands in (1, 16)]
    cases += [AotCase(head_size=size, summands=4) for size in (64, 80)]
    splits = [_split_variant(case, capability, table) for case in cases]
    return [*splits, *(_combine_variant(AotCase(dtype=dtype), capability, table) for dtype in (fp16, bf16))]


def _split_variant(case: AotCase, capability: tuple[int, int], table: TuningTable) -> AotVariant:
    heads = case.heads(capability)
    config = decode_config(table, heads, case.max_queries)
    result = case.signature()["q_ptr"]
    own = {
        "chosen_ptr": "*i32",
        "parts_ptr": "*fp32" if case.splits else result,
        "sums_ptr": "*fp32" if case.splits else None,
        "max_queries": "i32",
    }
    types, constants = case.rotation()
    constants = {**constants, "C": config.columns, "STAGES": loop_stages(config.num_stages)}
    return aot_variant(
        _split_kernel,
        f"attention decode {case}, {config.columns} columns, {config.tile} keys",
        case.signature() | types | own,
        heads.constants(config.tile) | constants,
        config.num_warps,
        2 * config.tile * heads.head_size * heads.storage.itemsize,
    )


def _combine_variant(case: AotCase, capability: tuple[int, int], table: TuningTable) -> AotVariant:
    heads = case.heads(capability)
    tile = decode_config(table, heads, case.max_queries).tile
    signature = {
        "parts_ptr": "*fp32",
        "sums_ptr": "*fp32",
        "chosen_ptr": "*i32",
        "starts_ptr": "*i32",
        "lens_ptr": "*i32",
        "out_ptr": case.signature()["q_ptr"],
        "max_queries": "i32",
        "splits": "i32",
        "window": None,
    }
    constants = _combine_constants(heads, heads.constants(tile))
    return aot_variant(_combine_kernel, f"attention combine {case}", signature, constants, COMBINE_WARPS)


@triton.jit
def _span(length, num_queries, window, splits, T: tl.constexpr, RUN: tl.constexpr):
    """Of a sequence: the first key that a query sees, the start of its run, tiles from there on, tiles of a split."""
    if window is None:
        seen_from = 0
        start = 0
    else:
        seen_from = tl.maximum(length - num_queries - window + 1, 0)
        start = seen_from // RUN * RUN
    num_tiles = tl.cdiv(length - start, T)
    return seen_from, start, num_tiles, tl.maximum(tl.cdiv(num_tiles, splits), 1)


# Compiled once for all steps: these change from step to step.
@triton.jit(do_not_specialize=["table_stride", "max_queries", "window"])
def _split_kernel(
    q_ptr,
    q_stride_token,
    q_stride_head,
    keys_ptr,
    values_ptr,
    key_scales_ptr,
    value_scales_ptr,
    chosen_ptr,
    starts_ptr,
    lens_ptr,
    tables_ptr,
    table_stride,
    parts_ptr,
    sums_ptr,
    max_queries,
    factor,
    cap,
    window,
    qkv_ptr,
    qkv_stride_part,
    qkv_stride_token,
    cos_sin_ptr,
    q_weight_ptr,
    k_weight_ptr,
    eps,
    stored_keys_ptr,
    stored_values_ptr,
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
    C: tl.constexpr,
    STAGES: tl.constexpr,
    SUMMANDS: tl.constexpr,
    R: tl.constexpr,
    LARGEST: tl.constexpr,
    PADDED_D: tl.constexpr,
):
    """Split pid 2 of columns and head of keys pid 1 of sequence chosen[pid 0].

    q [T, HQ, D]; keys, values [blocks, HKV, BLOCK, D] of q's type, or int16 [.., D / 2] with float32 scales
    [blocks, HKV, BLOCK]; parts float32 [len(chosen) · max_queries, HQ, splits, D] with the logarithms (base 2) of their
    sums of weights, or, of one split and sums None, the result [T, HQ, D]. factor and cap as `score_factors` has them.

    With SUMMANDS, q is not read but made of qkv [SUMMANDS, T, (HQ + 2 HKV) · D], as are the key and the value of the
    last position, which are written to stored_keys and stored_values: the cache as elements. Then a sequence has one
    query, at the position length - 1; cos_sin [P, R] float32, weights [D] or None, as in `rope_kv_write`.
    """
    QUANTIZED: tl.constexpr = STORAGE != "plain"
    STEP: tl.constexpr = 2 if QUANTIZED else 1  # elements of a word
    ROW: tl.constexpr = D // STEP
    PIECES: tl.constexpr = 1 if W2 == 0 else 2
    OPERANDS: tl.constexpr = PIECES * STEP
    dtype: tl.constexpr = q_ptr.dtype.element_ty
    sequence = tl.load(chosen_ptr + tl.program_id(0))
    head = tl.program_id(1) % HKV
    first_column = tl.program_id(1) // HKV * C
    split = tl.program_id(2)
    splits = tl.num_programs(2)
    query_start = tl.load(starts_ptr + sequence)
    num_queries = tl.load(starts_ptr + sequence + 1) - query_start
    length = tl.load(lens_ptr + sequence)
    seen_from, start, num_tiles, per_split = _span(length, num_queries, window, splits, T, RUN)
    if (first_column < num_queries * G) & (split * per_split < tl.maximum(num_tiles, 1)):
        column = first_column + tl.arange(0, C)
        token = column // G
        q_head = head * G + column % G
        table_ptr = tables_ptr + sequence.to(tl.int64) * table_stride
        q = ()
        acc = ()
        if SUMMANDS == 0:
            row = (query_start + tl.minimum(token, num_queries - 1)).to(tl.int64) * q_stride_token
            q_at = q_ptr + (row + q_head * q_stride_head)[None, :]
            for index in tl.static_range(OPERANDS):
                element = elements(index, W1, W2, STEP)[:, None]
                q += (tl.load(q_at + element, mask=element < D, other=0.0),)
        else:
            qkv_at = qkv_ptr + query_start.to(tl.int64) * qkv_stride_token
            angles_ptr = cos_sin_ptr + tl.maximum(length - 1, 0).to(tl.int64) * R
            q = _rotated_q(
                qkv_at + (q_head * D)[None, :], qkv_stride_part, angles_ptr, q_weight_ptr, eps,
                D, W1, W2, STEP, OPERANDS, SUMMANDS, R, dtype,
            )  # fmt: skip
            if (split * per_split < num_tiles) & ((split + 1) * per_split >= num_tiles):
                block = tl.load(table_ptr + (length - 1) // BLOCK).to(tl.int64)
                entry = (block * HKV + head) * BLOCK + (length - 1) % BLOCK
                _write_last(
                    qkv_at + (HKV * G + head) * D, qkv_stride_part, angles_ptr, k_weight_ptr, eps, entry,
                    stored_keys_ptr, stored_values_ptr, key_scales_ptr, value_scales_ptr,
                    HKV, D, PADDED_D, SUMMANDS, R, LARGEST, dtype,
                )  # fmt: skip
                tl.debug_barrier()  # other threads read what one has written
        for index in tl.static_range(OPERANDS):
            acc += (tl.zeros((elements(index, W1, W2, STEP).shape[0], C), tl.float32),)
        last_seen = (length - num_queries + token)[None, :]
        top = tl.full((C,), LOWEST, tl.float32)
        # A row of sums each, so that adding up across threads waits until after the loop.
        total = tl.zeros((T, C), tl.float32)
        first_tile = split * per_split
        for tile in tl.range(first_tile, tl.minimum(first_tile + per_split, num_tiles), num_stages=STAGES):
            first_key = start + tile * T
            first_slot, offset = find_slots(table_ptr, head, first_key, length - 1, HKV, BLOCK, RUN, T)
            at = row_offsets(first_slot, offset, ROW, T)
            key = first_key + tl.arange(0, T)
            inside = key < length
            if window is not None:
                inside &= key >= seen_from

            products = tl.zeros((T, C), tl.float32)
            for piece in tl.static_range(PIECES):
                k = load_operands(
                    keys_ptr + at[:, None], None, piece, W1, W2, ROW, 1, STORAGE, CONVERT, dtype
                )
                for i in tl.static_range(STEP):
                    products = tl.dot(k[i], q[piece * STEP + i], products, input_precision="ieee")
            key_scales_at = None
            value_scales_at = None
            if QUANTIZED:
                slot = tl.reshape(first_slot + offset, (T,))
                key_scales_at = key_scales_ptr + slot
                value_scales_at = value_scales_ptr + slot
            seen = key[:, None] <= last_seen
            if window is not None:
                seen &= key[:, None] > last_seen - window
            weights, shares, top, fade = weigh(
                products, top, factor, cap, seen, inside, key_scales_at, value_scales_at, 0, dtype
            )
            fade = fade[None, :]
            total = tl.fma(total, fade, shares)

            mixed = ()
            for piece in tl.static_range(PIECES):
                v = load_operands(
                    values_ptr + at[None, :], inside[None, :], piece, W1, W2, ROW, 0, STORAGE, CONVERT, dtype
                )
                for i in tl.static_range(STEP):
                    mixed += (tl.dot(v[i], weights, acc[piece * STEP + i] * fade, input_precision="ieee"),)
            acc = mixed

        sums = tl.sum(total, axis=0)
        # Queries that see no key of this split, and a sequence of length 0, have a sum of 0.
        divisor = tl.where(sums == 0.0, 1.0, sums)
        real = token < num_queries
        if sums_ptr is None:
            row = (query_start + token).to(tl.int64) * (HKV * G) + q_head
        else:
            row = (tl.program_id(0) * max_queries + token).to(tl.int64) * (HKV * G) + q_head
            row = row * splits + split
            logarithm = tl.where(sums == 0.0, float("-inf"), top + tl.log2(divisor))
            tl.store(sums_ptr + row, logarithm, mask=real)
        for index in tl.static_range(OPERANDS):
            element = elements(index, W1, W2, STEP)[:, None]
            part = (acc[index] / divisor[None, :]).to(parts_ptr.dtype.element_ty)
            tl.store(parts_ptr + (row * D)[None, :] + element, part, mask=real[None, :] & (element < D))


@triton.jit
def _rotated_q(
    at,
    stride_part,
    angles_ptr,
    weight_ptr,
    eps,
    D: tl.constexpr,
    W1: tl.constexpr,
    W2: tl.constexpr,
    STEP: tl.constexpr,
    OPERANDS: tl.constexpr,
    SUMMANDS: tl.constexpr,
    R: tl.constexpr,
    dtype: tl.constexpr,
):
    """The operands of the heads at `at` [1, C], normalised and rotated."""
    xs = ()
    squares = tl.zeros((1, at.shape[1]), tl.float32)
    for index in tl.static_range(OPERANDS):
        element = elements(index, W1, W2, STEP)[:, None]
        x = added_up(at + element, element < D, stride_part, SUMMANDS, dtype)
        squares += tl.sum(x * x, axis=0, keep_dims=True)
        xs += (x,)
    q = ()
    for index in tl.static_range(OPERANDS):
        element = elements(index, W1, W2, STEP)[:, None]
        other = paired_with(element, R)
        x = xs[index]
        y = added_up(at + other, element < R, stride_part, SUMMANDS, dtype)
        if weight_ptr is not None:
            inverse = inverse_rms(squares, D, eps)
            x = _weighed(x * inverse, weight_ptr + element, element < D, dtype)
            y = _weighed(y * inverse, weight_ptr + other, element < R, dtype)
        q += (rotated(x, y, element, angles_ptr, element < R, R).to(dtype),)
    return q


@triton.jit
def _write_last(
    at,
    stride_part,
    angles_ptr,
    weight_ptr,
    eps,
    entry,
    keys_ptr,
    values_ptr,
    key_scales_ptr,
    value_scales_ptr,
    HKV: tl.constexpr,
    D: tl.constexpr,
    PADDED_D: tl.constexpr,
    SUMMANDS: tl.constexpr,
    R: tl.constexpr,
    LARGEST: tl.constexpr,
    dtype: tl.constexpr,
):
    """The key at `at`, normalised and rotated, and the value HKV heads behind it, as an entry of the cache."""
    element = tl.arange(0, PADDED_D)[None, :]
    is_value = tl.arange(0, 2)[:, None] == 1
    entry = tl.zeros((2, 1), tl.int64) + entry
    head = at + tl.where(is_value, HKV * D, 0)
    x = added_up(head + element, element < D, stride_part, SUMMANDS, dtype)
    other = paired_with(element, R)
    turns = (element < R) & ~is_value
    y = added_up(head + other, turns, stride_part, SUMMANDS, dtype)
    if weight_ptr is not None:
        inverse = inverse_rms(tl.sum(x * x, axis=1, keep_dims=True), D, eps)
        x = tl.where(is_value, x, _weighed(x * inverse, weight_ptr + element, element < D, dtype))
        y = _weighed(y * inverse, weight_ptr + other, element < R, dtype)
    x = rotated(x, y, element, angles_ptr, turns, R).to(dtype)
    write_entry(x, keys_ptr, key_scales_ptr, entry, element, ~is_value, LARGEST, D)
    write_entry(x, values_ptr, value_scales_ptr, entry, element, is_value, LARGEST, D)


@triton.jit
def _weighed(x, weight_at, mask, dtype: tl.constexpr):
    """What was normalised, rounded, times its weight, rounded."""
    weight = tl.load(weight_at, mask=mask, other=0.0).to(tl.float32)
    return (x.to(dtype).to(tl.float32) * weight).to(dtype).to(tl.float32)


# Compiled once for all steps: these change from step to step.
@triton.jit(do_not_specialize=["max_queries", "splits", "window"])
def _combine_kernel(
    parts_ptr,
    sums_ptr,
    chosen_ptr,
    starts_ptr,
    lens_ptr,
    out_ptr,
    max_queries,
    splits,
    window,
    HQ: tl.constexpr,
    D: tl.constexpr,
    PADDED_D: tl.constexpr,
    T: tl.constexpr,
    RUN: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """Adds up the splits of query and head pid 1 of sequence chosen[pid 0], some at once, in index order."""
    token = tl.program_id(1) // HQ
    head = tl.program_id(1) % HQ
    sequence = tl.load(chosen_ptr + tl.program_id(0))
    query_start = tl.load(starts_ptr + sequence)
    num_queries = tl.load(starts_ptr + sequence + 1) - query_start
    if token < num_queries:
        length = tl.load(lens_ptr + sequence)
        _, _, num_tiles, per_split = _span(length, num_queries, window, splits, T, RUN)
        used = tl.cdiv(num_tiles, per_split)
        row = ((tl.program_id(0) * max_queries + token).to(tl.int64) * HQ + head) * splits
        element = tl.arange(0, PADDED_D)
        # A tensor of one, as tl.max gives for what is loaded.
        top = tl.full((), LOWEST, tl.float32)
        total = tl.zeros((), tl.float32)
        acc = tl.zeros((PADDED_D,), tl.float32)
        for first in range(0, used, AT_ONCE):
            split = first + tl.arange(0, AT_ONCE)
            sums = tl.load(sums_ptr + row + split, mask=split < used, other=float("-inf"))
            new_top = tl.maximum(top, tl.max(sums, axis=0))
            share = tl.exp2(sums - new_top)
            fade = tl.exp2(top - new_top)
            mask = (split < used)[:, None] & (element < D)[None, :]
            part = tl.load(parts_ptr + (row + split)[:, None] * D + element[None, :], mask=mask, other=0.0)
            total = total * fade + tl.sum(share, axis=0)
            acc = acc * fade + tl.sum(part * share[:, None], axis=0)
            top = new_top
        acc = acc / tl.where(total == 0.0, 1.0, total)
        at = out_ptr + ((query_start + token).to(tl.int64) * HQ + head) * D + element
        tl.store(at, acc.to(out_ptr.dtype.element_ty), mask=element < D)
