"""Fast paged attention on a CPU: gathers the pages of similar sequences for torch's fused attention.

Sequences with one query are computed in bfloat16 where q and the cache are; all else in float32, which is no slower.
8-bit storage is widened as it is gathered. A soft cap has no fused kernel, so its scores are written out, for some
queries at a time. What the layers of a step have in common (pages and masks) is worked out once and kept in
AttentionBatch.plans.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli_kernels.paged_attention import AttentionBatch
from llmcli_kernels.paged_kv import PagedKV

# A sequence joins a group of longer ones if at least this share of what is gathered for it is its own.
MIN_SHARE = 0.75
# Elements of keys gathered at a time: enough to hide the cost of a call, few enough for the cache.
MAX_GATHERED = 1 << 18
# Scores with a soft cap that are held at a time.
MAX_SCORES = 1 << 21


@dataclass(frozen=True)
class _Span:
    """The pages that some query of one sequence sees."""

    sequence: int
    first_page: int
    num_pages: int


@dataclass(frozen=True, eq=False)
class _Group:
    """Sequences that are computed together: several with one query each, or a single one with many.

    Attributes:
        rows: of q and out.
        pages: [S, HKV, pages] row numbers of a cache seen as [num_blocks * HKV, B * D].
        mask: float32 [S, 1, 1, L] or [queries, L], 0 or -inf; L counts the gathered positions.
        blanks: positions of L, and which of them no query sees, [S, 1, positions, 1]: set to 0, for the cache
            may hold anything there and 0 * NaN is NaN.
    """

    rows: Tensor | slice
    pages: Tensor
    mask: Tensor
    blanks: tuple[tuple[slice, Tensor], ...]


def paged_attention(
    q: Tensor,
    kv: PagedKV,
    batch: AttentionBatch,
    scale: float,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    key = ("cpu", kv.keys.shape[1:], sliding_window)
    if key not in batch.plans:
        batch.plans[key] = _plan(batch, kv.keys.shape, sliding_window)
    groups = cast("list[_Group]", batch.plans[key])
    out = torch.empty(q.shape, dtype=q.dtype)
    for group in groups:
        one_query = not isinstance(group.rows, slice)
        narrow = one_query and q.dtype == torch.bfloat16 and not kv.quantized
        compute = q.dtype if narrow else torch.float32
        keys = _gather(kv.keys, kv.key_scales, group, compute)
        values = _gather(kv.values, kv.value_scales, group, compute)
        queries = q[group.rows].to(compute)
        if one_query:
            # The heads that share keys are as good as several queries at one position.
            shared = queries.view(keys.shape[0], keys.shape[1], -1, keys.shape[3])
            mixed = _attend(shared, keys, values, group.mask, scale, softcap)
        elif softcap is None:
            heads_first = queries.transpose(0, 1).unsqueeze(0)
            mixed = F.scaled_dot_product_attention(
                heads_first, keys, values, attn_mask=group.mask, scale=scale, enable_gqa=True
            )[0].transpose(0, 1)
        else:
            mixed = _attend_many(queries, keys, values, group.mask, scale, softcap)
        out[group.rows] = mixed.reshape(queries.shape).to(q.dtype)
    return out


def _attend_many(
    q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float, softcap: float
) -> Tensor:
    """q [T, HQ, D] over keys and values [1, HKV, L, D], mask [T, L], some queries at a time."""
    kv_heads, length = keys.shape[1:3]
    step = max(1, MAX_SCORES // (q.shape[1] * length))
    parts = []
    for rows, hidden in zip(q.split(step), mask.split(step), strict=True):
        by_head = rows.unflatten(1, (kv_heads, -1)).permute(1, 2, 0, 3)  # [HKV, group, T, D]
        group = by_head.shape[1]
        mixed = _attend(by_head.flatten(1, 2)[None], keys, values, hidden.repeat(group, 1), scale, softcap)
        parts.append(mixed[0].unflatten(1, (group, -1)).permute(2, 0, 1, 3).flatten(1, 2))
    return torch.cat(parts)


def _attend(
    q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float, softcap: float | None
) -> Tensor:
    """Attention of q [S, HKV, group, D] over keys and values [S, HKV, L, D]; softmax in float32."""
    if q.dtype == torch.float32 and softcap is None:
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=scale)
    scores = torch.matmul(q, keys.transpose(-1, -2)).to(torch.float32)
    if softcap is not None:
        scores, scale = scores.mul_(scale / softcap).tanh_(), softcap
    shares = torch.add(mask, scores, alpha=scale).softmax(dim=-1)
    return torch.matmul(shares.to(q.dtype), values)


def _gather(cache: Tensor, scales: Tensor | None, group: _Group, dtype: torch.dtype) -> Tensor:
    """The group's part of a cache, [S, HKV, L, D] of a dtype, with zeros where no query looks."""
    _, kv_heads, block_size, head_size = cache.shape
    pages, shape = group.pages.flatten(), (group.pages.shape[0], kv_heads, -1, head_size)
    if scales is None:
        gathered = cache.view(-1, block_size * head_size).index_select(0, pages).view(shape).to(dtype)
    else:
        rows = cache.view(torch.uint8).view(-1, block_size, head_size)
        wide = _widen(rows.index_select(0, pages), cache.dtype)
        of_rows = scales.view(-1, block_size).index_select(0, pages)
        gathered = wide.mul_(of_rows.unsqueeze(-1)).view(shape).to(dtype)
    for positions, hidden in group.blanks:
        gathered[:, :, positions].masked_fill_(hidden, 0.0)
    return gathered


def _widen(stored: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes of an 8-bit dtype as float32, any but NaN. torch converts float8 one by one, ten times as slowly."""
    if dtype != torch.float8_e4m3fn:
        return stored.view(dtype).to(torch.float32)
    # A float8 is a float16 with fewer digits and an exponent that counts from 8 less.
    half = (stored.view(torch.int8).to(torch.int16) << 7) & -0x4001
    return half.view(torch.float16).to(torch.float32).mul_(2.0**8)


def _plan(batch: AttentionBatch, cache_shape: torch.Size, sliding_window: int | None) -> list[_Group]:
    _, kv_heads, block_size, head_size = cache_shape
    max_pages = max(1, MAX_GATHERED // (kv_heads * block_size * head_size))
    single, groups = [], []
    for sequence, kv_len in enumerate(batch.kv_lens):
        queries = batch.query_starts[sequence + 1] - batch.query_starts[sequence]
        window = kv_len if sliding_window is None else sliding_window
        first_page = max(0, kv_len - queries - window + 1) // block_size
        span = _Span(sequence, first_page, math.ceil(kv_len / block_size) - first_page)
        if queries == 1:
            single.append(span)
        else:
            groups.append(_group(batch, [span], cache_shape, window))
    for spans in _similar(single, max_pages):
        window = max(batch.kv_lens) if sliding_window is None else sliding_window
        groups.append(_group(batch, spans, cache_shape, window))
    return groups


def _similar(spans: Sequence[_Span], max_pages: int) -> list[list[_Span]]:
    """Groups of spans of about the same length, of at most max_pages in all or of one span."""
    groups: list[list[_Span]] = []
    for span in sorted(spans, key=lambda span: -span.num_pages):
        longest = groups[-1][0].num_pages if groups else 0
        room = groups and (len(groups[-1]) + 1) * longest <= max_pages
        if room and span.num_pages >= MIN_SHARE * longest:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def _group(batch: AttentionBatch, spans: Sequence[_Span], cache_shape: torch.Size, window: int) -> _Group:
    _, kv_heads, block_size, _ = cache_shape
    sequences = torch.tensor([span.sequence for span in spans])
    first_page = torch.tensor([span.first_page for span in spans]).unsqueeze(1)
    num_pages = torch.tensor([span.num_pages for span in spans]).unsqueeze(1)
    kv_len = torch.tensor([batch.kv_lens[span.sequence] for span in spans]).unsqueeze(1)

    # Shorter sequences are filled up with their own last page, hidden by the mask.
    columns = first_page + torch.minimum(torch.arange(int(num_pages.max())), num_pages - 1)
    blocks = batch.block_tables[sequences].to(torch.int64).gather(1, columns)
    pages = blocks.unsqueeze(1) * kv_heads + torch.arange(kv_heads).view(1, -1, 1)

    position = first_page * block_size + torch.arange(columns.shape[1] * block_size)
    start, stop = batch.query_starts[spans[0].sequence], batch.query_starts[spans[0].sequence + 1]
    distance = kv_len - 1 - position
    if len(spans) == 1 and stop - start > 1:
        rows: Tensor | slice = slice(start, stop)
        by_query = distance - torch.arange(stop - start - 1, -1, -1).unsqueeze(1)
        seen = (by_query >= 0) & (by_query < window)
        hidden = ~seen.any(dim=0, keepdim=True)
    else:
        rows = torch.tensor(batch.query_starts)[sequences]
        seen = ((distance >= 0) & (distance < window)).view(len(spans), 1, 1, -1)
        hidden = ~seen.view(len(spans), -1)
    mask = torch.zeros(seen.shape).masked_fill_(~seen, -math.inf)
    return _Group(rows, pages, mask, _blanks(hidden))


def _blanks(hidden: Tensor) -> tuple[tuple[slice, Tensor], ...]:
    """hidden [S, L] as spans of positions: before and after those that every sequence sees."""
    if not hidden.any():
        return ()
    clear = (~hidden.any(dim=0)).nonzero()[:, 0].tolist()
    length = hidden.shape[1]
    edges = [(0, clear[0]), (clear[-1] + 1, length)] if clear else [(0, length)]
    spans = [slice(start, stop) for start, stop in edges if start < stop]
    return tuple((span, hidden[:, None, span, None]) for span in spans)
