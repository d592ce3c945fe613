"""The data that attention is checked and timed with: a cache whose blocks lie in no order.

It is checked on a few sequences of awkward lengths, which the reference does quickly, and timed on many or long ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli_kernels.gpu import current_gpu
from llmcli_kernels.paged_attention import AttentionBatch
from llmcli_kernels.paged_attention.reference import paged_attention
from llmcli_kernels.paged_kv import PagedKV, quantize
from llmcli_kernels.tune.tuner import Prepared
from llmcli_kernels.tuning import TuningTable

BLOCK_SIZE = 16
BOUND = 4e-3  # of float16 results, weights and 8-bit storage widened exactly
Step = Sequence[tuple[int, int]]  # (queries, tokens in the cache) of each sequence


@dataclass(frozen=True, kw_only=True)
class AttentionShape:
    """The heads of a layer; `storage` of its cache is float16 or int8."""

    num_heads: int
    num_kv_heads: int
    head_size: int
    storage: torch.dtype = torch.float16


def prepare_attention(shape: AttentionShape, checked: Step, timed: Sequence[Step], device: str) -> Prepared:
    """Checked on one step, timed on several."""
    most = max(sum(-(-length // BLOCK_SIZE) for _, length in step) for step in (checked, *timed))
    kv = _cache(shape, most, device)
    queries = max(sum(queries for queries, _ in step) for step in (checked, *timed))
    q = torch.randn(queries, shape.num_heads, shape.head_size, device=device, dtype=torch.float16)
    batch = _batch(checked, device)
    scale = shape.head_size**-0.5
    expected = paged_attention(q[: batch.num_tokens], kv, batch, scale, None, None)

    def run(table: TuningTable, step: Step) -> Callable[[], Tensor]:
        from llmcli_kernels.paged_attention.triton_attention import TritonPagedAttention

        attention, batch = TritonPagedAttention(table, current_gpu()), _batch(step, device)
        return lambda: attention(q[: batch.num_tokens], kv, batch, scale, None, None)

    return Prepared(
        expected=expected,
        bound=BOUND,
        output=lambda table: run(table, checked)(),
        calls=lambda table: [run(table, step) for step in timed],
    )


def _cache(shape: AttentionShape, num_blocks: int, device: str) -> PagedKV:
    size = (num_blocks, shape.num_kv_heads, BLOCK_SIZE, shape.head_size)
    keys, values = (torch.randn(size, device=device, dtype=torch.float16) for _ in range(2))
    if shape.storage == torch.float16:
        return PagedKV(keys, values)
    (keys, key_scales), (values, value_scales) = (
        quantize(keys, shape.storage),
        quantize(values, shape.storage),
    )
    return PagedKV(keys, values, key_scales, value_scales)


def _batch(step: Step, device: str) -> AttentionBatch:
    """The same blocks each time, without the plans that another config made."""
    blocks = [-(-length // BLOCK_SIZE) for _, length in step]
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(sum(blocks), generator=generator).to(device, torch.int32)
    tables = torch.zeros(len(step), max(blocks), device=device, dtype=torch.int32)
    starts = [0]
    for number, (count, mine) in enumerate(zip(blocks, order.split(blocks), strict=True)):
        tables[number, :count] = mine
        starts.append(starts[-1] + step[number][0])
    return AttentionBatch(tuple(starts), tuple(length for _, length in step), tables)
