"""Fast on a CPU: without a norm q and k are rotated where they lie, in one go, and q is a view into the merged row."""

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli_kernels.paged_kv import PagedKV, quantize
from llmcli_kernels.rope_kv_write import QKNorm


def rope_kv_write(
    qkv: Tensor,
    positions: Tensor,
    slots: Tensor,
    cos_sin: Tensor,
    kv: PagedKV,
    num_heads: int,
    qk_norm: QKNorm | None,
) -> Tensor:
    size, kv_heads = kv.head_size, kv.num_kv_heads
    heads = qkv.unflatten(1, (-1, size))
    q, k, v = heads.split((num_heads, kv_heads, kv_heads), dim=1)
    cos, sin = cos_sin[positions].unsqueeze(1).chunk(2, dim=-1)
    if qk_norm is None:
        _rotate(heads[:, : num_heads + kv_heads], cos, sin)
    else:
        q = F.rms_norm(q, (size,), qk_norm.q_weight, qk_norm.eps)
        k = F.rms_norm(k, (size,), qk_norm.k_weight, qk_norm.eps)
        _rotate(q, cos, sin)
        _rotate(k, cos, sin)

    blocks = torch.div(slots, kv.block_size, rounding_mode="floor")
    offsets = slots % kv.block_size
    for cache, scales, entries in ((kv.keys, kv.key_scales, k), (kv.values, kv.value_scales, v)):
        if scales is None:
            cache[blocks, :, offsets] = entries
        else:
            stored, scales[blocks, :, offsets] = quantize(entries, cache.dtype)
            # Indexing float8 is not implemented everywhere; bytes are.
            cache.view(torch.uint8)[blocks, :, offsets] = stored.view(torch.uint8)
    return q


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn the pairs of heads [T, H, D] in place by the angles [T, 1, R / 2]."""
    halves = heads[..., : 2 * cos.shape[-1]].unflatten(-1, (2, -1))
    wide = halves.to(torch.float32)
    turned = wide * cos.unsqueeze(2)
    turned[:, :, 0].addcmul_(wide[:, :, 1], sin, value=-1)
    turned[:, :, 1].addcmul_(wide[:, :, 0], sin)
    halves.copy_(turned)
