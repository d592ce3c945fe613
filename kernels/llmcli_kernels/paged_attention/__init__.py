"""Causal attention of a step's queries over the paged KV cache (PagedAttention, Kwon et al., 2023).

Owns `AttentionBatch`, the description of a step that all layers share, and the shared argument checks.
Does not know requests, prefix caching or who filled the blocks.

    paged_attention(q, kv, batch, scale, sliding_window, softcap) -> out
        q [T, HQ, D] (may be a strided view, last dim contiguous); kv: the `PagedKV` of a layer, already holding
        this step's keys and values, in q's dtype or in 8 bits; HQ a multiple of HKV. out [T, HQ, D] is new
        and contiguous. The queries of sequence s are rows query_starts[s] .. query_starts[s+1]-1, the last
        of them at position kv_lens[s]-1; position i of a sequence lives in block block_tables[s, i // B],
        offset i % B. A query at position i sees positions 0..i, or i-w+1..i with sliding_window = w
        (transformers' meaning). With softcap = c every score s becomes c · tanh(s / c) before the softmax (Gemma 2,
        arXiv 2408.00118). Softmax in float32. Cache slots outside of what some query sees are never
        read into a result, whatever they and their scales hold.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llmcli_kernels.paged_kv import PagedKV


@dataclass(frozen=True, eq=False)
class AttentionBatch:
    """Where the queries and the keys of a step are.

    Attributes:
        query_starts: S+1 ascending row numbers, from 0 to T.
        kv_lens: S lengths, this step's tokens included; at least the number of queries.
        block_tables: [S, max_blocks] int64 or int32; entries behind a sequence's last block are ignored.
        lengths: [S] int32 beside the tables, where the lengths are read when the kernels run: then kv_lens are only
            what they are at most. A captured graph is replayed after these and the tables (int32) were overwritten. A
            sequence of one query may have the length 0: its row of the result is zeros. Only kernel sets with
            `reads_lengths` take it.
        plans: filled by kernels: what one of them works out once per step and uses again in every layer.

    Raises:
        ValueError: the parts do not fit together.
    """

    query_starts: tuple[int, ...]
    kv_lens: tuple[int, ...]
    block_tables: Tensor
    lengths: Tensor | None = None
    plans: dict[Hashable, object] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        starts, lens, tables = self.query_starts, self.kv_lens, self.block_tables
        if len(starts) != len(lens) + 1 or starts[0] != 0:
            raise ValueError(
                f"AttentionBatch: {len(lens)} kv_lens need {len(lens) + 1} query_starts from 0, got {starts}"
            )
        for index, (start, end, kv_len) in enumerate(zip(starts, starts[1:], lens, strict=False)):
            if not 1 <= end - start <= kv_len:
                raise ValueError(
                    f"AttentionBatch: sequence {index} has {end - start} queries and kv_len {kv_len}"
                )
        if (
            tables.dim() != 2
            or tables.shape[0] != len(lens)
            or tables.dtype not in (torch.int64, torch.int32)
        ):
            raise ValueError(
                f"AttentionBatch: block_tables must be int64 or int32 [{len(lens)}, blocks],"
                f" got {tables.dtype} {list(tables.shape)}"
            )
        lengths = self.lengths
        if lengths is not None and (lengths.dtype != torch.int32 or lengths.shape != (len(lens),)):
            raise ValueError(
                f"AttentionBatch: lengths must be int32 [{len(lens)}],"
                f" got {lengths.dtype} {list(lengths.shape)}"
            )

    @property
    def num_tokens(self) -> int:
        return self.query_starts[-1]


def check_paged_attention(
    q: Tensor,
    kv: PagedKV,
    batch: AttentionBatch,
    scale: float,
    sliding_window: int | None,
    softcap: float | None,
) -> None:
    """Raise a ValueError that names the numbers when the arguments do not fit together."""
    if q.dim() != 3 or q.shape[2] != kv.head_size or q.shape[1] % kv.num_kv_heads or q.stride(2) != 1:
        raise ValueError(
            f"paged_attention: q {list(q.shape)} must be [T, multiple of {kv.num_kv_heads}, {kv.head_size}],"
            " last dim contiguous"
        )
    if not q.is_floating_point() or not (kv.quantized or kv.keys.dtype == q.dtype):
        raise ValueError(f"paged_attention: q is {q.dtype}, the cache {kv.keys.dtype}")
    if q.shape[0] != batch.num_tokens:
        raise ValueError(f"paged_attention: q has {q.shape[0]} rows, the batch {batch.num_tokens}")
    room = batch.block_tables.shape[1] * kv.block_size
    if max(batch.kv_lens, default=0) > room:
        raise ValueError(
            f"paged_attention: kv_len {max(batch.kv_lens)} is more than the {room} slots of a block table"
        )
    if sliding_window is not None and sliding_window < 1:
        raise ValueError(f"paged_attention: sliding_window must be at least 1 or None, got {sliding_window}")
    if softcap is not None and not 0 < softcap < math.inf:
        raise ValueError(f"paged_attention: softcap must be above 0 or None, got {softcap}")
