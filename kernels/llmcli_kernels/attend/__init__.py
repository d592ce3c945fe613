"""From the merged qkv projection to what attention gives: `rope_kv_write`, then `paged_attention`, in one call.

So that a kernel set can do both at once where that is faster; `in_turn` does one after the other.

    attend(qkv, positions, slots, cos_sin, kv, num_heads, qk_norm, batch, scale, sliding_window, softcap) -> out
        The arguments of the two operations, which say what they are; out [T, HQ, D]. The rows of qkv are those of the
        batch's queries, in order, and positions and slots say what the batch says: the query at position i of sequence
        s has the slot of its block table's entry for i. A set may go by either. qkv is used up. A sequence whose length
        on the device is 0 (`AttentionBatch.lengths`) writes nothing.
"""

from collections.abc import Callable

from torch import Tensor

from llmcli_kernels.activations import LinearOutput
from llmcli_kernels.paged_attention import AttentionBatch
from llmcli_kernels.paged_kv import PagedKV
from llmcli_kernels.rope_kv_write import QKNorm, check_rope_kv_write

Attend = Callable[
    [
        LinearOutput,
        Tensor,
        Tensor,
        Tensor,
        PagedKV,
        int,
        QKNorm | None,
        AttentionBatch,
        float,
        int | None,
        float | None,
    ],
    Tensor,
]


def check_attend(
    qkv: LinearOutput,
    positions: Tensor,
    slots: Tensor,
    cos_sin: Tensor,
    kv: PagedKV,
    num_heads: int,
    qk_norm: QKNorm | None,
    batch: AttentionBatch,
    scale: float,
    sliding_window: int | None,
    softcap: float | None,
) -> None:
    """Raise a ValueError that names the numbers when what stands before attention does not fit together."""
    check_rope_kv_write(qkv, positions, slots, cos_sin, kv, num_heads, qk_norm)


def in_turn(
    rope_kv_write: Callable[[LinearOutput, Tensor, Tensor, Tensor, PagedKV, int, QKNorm | None], Tensor],
    paged_attention: Callable[[Tensor, PagedKV, AttentionBatch, float, int | None, float | None], Tensor],
) -> Attend:
    """The operation as the two that it stands for."""

    def attend(
        qkv: LinearOutput,
        positions: Tensor,
        slots: Tensor,
        cos_sin: Tensor,
        kv: PagedKV,
        num_heads: int,
        qk_norm: QKNorm | None,
        batch: AttentionBatch,
        scale: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Tensor:
        q = rope_kv_write(qkv, positions, slots, cos_sin, kv, num_heads, qk_norm)
        return paged_attention(q, kv, batch, scale, sliding_window, softcap)

    return attend
