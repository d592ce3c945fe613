"""`ForwardBatch`: the tensors of one step, the only thing besides the KV cache that a forward pass reads."""

from dataclasses import dataclass

from torch import Tensor

from llmcli_kernels.paged_attention import AttentionBatch
from llmcli_kernels.paged_kv import PagedKV


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """T tokens of S sequences, of which R want logits.

    Attributes:
        token_ids: [T] int64.
        positions: [T] int64, position of each token in its sequence.
        slots: [T] int64, where its key and value go: block id * block size + offset.
        attention: where the queries and keys of each sequence are.
        sample_rows: [R] int64, ascending: rows whose next token is drawn.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    attention: AttentionBatch
    sample_rows: Tensor


@dataclass(frozen=True, slots=True)
class KVCache:
    """Keys and values of all layers, one `PagedKV` a layer."""

    layers: tuple[PagedKV, ...]
