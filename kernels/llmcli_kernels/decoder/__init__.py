"""All layers of a decoder in one call: for devices where the calls between operations cost more than they should.

Owns how a decoder's layers are described to a kernel set, and nothing of how they run. A kernel set's `fuse_decoder`
takes such a description and the cache, and hands back a `FusedDecoder`, or None for what it can not run as one; the
caller then goes through the operations one by one. Both compute the same: RMS norm, merged q/k/v projection, rope and
the cache write, paged attention, o projection, RMS norm, merged gate/up projection, SiLU · mul, down projection (Llama,
arXiv 2302.13971).
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
    """All layers and what they share.

    Attributes:
        norm: [hidden size], after the last layer.
        eps: of all norms but those of heads.
        num_heads: of queries.
        scale: of attention's scores.
        cos_sin: see `rope_kv_write`.
    """

    layers: tuple[DecoderLayer, ...]
    norm: Tensor
    eps: float
    num_heads: int
    scale: float
    cos_sin: Tensor


class FusedDecoder(Protocol):
    """From a step's embeddings [T, hidden size] to the normed output of the last layer, of the same form.

    positions and slots are [T] int64, in range: they are not looked at. What is returned is valid until the next call.
    """

    def __call__(
        self, hidden: Tensor, positions: Tensor, slots: Tensor, attention: AttentionBatch
    ) -> Tensor: ...


def no_fusion(parts: DecoderParts, kvs: tuple[PagedKV, ...]) -> FusedDecoder | None:
    """The answer of kernel sets that run operations one by one."""
    return None
