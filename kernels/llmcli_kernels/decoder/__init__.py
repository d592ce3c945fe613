"""A decoder's step in one call: for devices where the calls between operations cost more than they should.

Owns how a decoder is described to a kernel set, and nothing of how it runs. A kernel set's `fuse_decoder` takes such a
description and the cache, and hands back a `FusedDecoder`, or None for what it can not run as one; the caller then goes
through the operations one by one. Both compute the same: embedding; in each layer RMS norm, merged q/k/v projection,
rope and the cache write, paged attention, o projection, RMS norm, merged gate/up projection, SiLU · mul, down
projection; then a norm, and of the rows that are sampled the logits (Llama, arXiv 2302.13971).
"""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from llmcli_kernels.paged_attention import AttentionBatch
from llmcli_kernels.paged_kv import PagedKV
from llmcli_kernels.rope_kv_write import QKNorm


@dataclass(frozen=True, eq=False)
class PackedLinear:
    """A 4-bit layer: what `pack_int4` of the same kernel set gave, and a bias [N] or None."""

    packed: Any
    bias: Tensor | None


@dataclass(frozen=True, eq=False)
class DecoderLayer:
    """One layer; norms are [hidden size], sliding_window as in `paged_attention`."""

    input_norm: Tensor
    qkv: PackedLinear
    qk_norm: QKNorm | None
    o: PackedLinear
    post_norm: Tensor
    gate_up: PackedLinear
    down: PackedLinear
    sliding_window: int | None


@dataclass(frozen=True, eq=False)
class DecoderParts:
    """All layers, what is before and behind them, and what they share.

    Attributes:
        embedding: [vocabulary, hidden size].
        norm: [hidden size], after the last layer.
        lm_head: what `pack_int8` of the same kernel set gave, or None where the head is the caller's.
        eps: of all norms but those of heads.
        num_heads: of queries.
        scale: of attention's scores.
        cos_sin: see `rope_kv_write`.
    """

    embedding: Tensor
    layers: tuple[DecoderLayer, ...]
    norm: Tensor
    lm_head: Any | None
    eps: float
    num_heads: int
    scale: float
    cos_sin: Tensor


class FusedDecoder(Protocol):
    """One step of T tokens, of which R rows are sampled: token ids, positions, slots [T] and sample_rows [R], int64.

    Returns:
        Logits [R, vocabulary] in float32, or, where the head is the caller's, the normed output of the last layer, [R,
        hidden size]. Valid until the next call; it may be written to.

    Raises:
        ValueError, IndexError: the parts of the step do not fit together, or point outside.
    """

    def __call__(
        self,
        token_ids: Tensor,
        positions: Tensor,
        slots: Tensor,
        attention: AttentionBatch,
        sample_rows: Tensor,
    ) -> Tensor: ...


def no_fusion(parts: DecoderParts, kvs: tuple[PagedKV, ...]) -> FusedDecoder | None:
    """The answer of kernel sets that run operations one by one."""
    return None
