"""Plain PyTorch: the truth that faster kernels are compared with. Leaves qkv as it was."""

import torch
from torch import Tensor

from llmcli_kernels.paged_kv import PagedKV, quantize
from llmcli_kernels.rms_norm.reference import rms_norm
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
    kv_heads = kv.num_kv_heads
    heads = qkv.unflatten(1, (-1, kv.head_size))
    q, k, v = heads.split((num_heads, kv_heads, kv_heads), dim=1)
    if qk_norm is not None:
        q = rms_norm(q, qk_norm.q_weight, qk_norm.eps)
        k = rms_norm(k, qk_norm.k_weight, qk_norm.eps)
    _write(kv.keys, kv.key_scales, slots, _rotated(k, positions, cos_sin))
    _write(kv.values, kv.value_scales, slots, v)
    return _rotated(q, positions, cos_sin)


def _rotated(heads: Tensor, positions: Tensor, cos_sin: Tensor) -> Tensor:
    cos, sin = cos_sin[positions].unsqueeze(1).chunk(2, dim=-1)
    half = cos.shape[-1]
    first = heads[..., :half].to(torch.float32)
    second = heads[..., half : 2 * half].to(torch.float32)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return torch.cat((turned.to(heads.dtype), heads[..., 2 * half :]), dim=-1)


def _write(cache: Tensor, scales: Tensor | None, slots: Tensor, heads: Tensor) -> None:
    blocks, offsets = slots // cache.shape[2], slots % cache.shape[2]
    if scales is None:
        cache[blocks, :, offsets] = heads
        return
    stored, scale = quantize(heads, cache.dtype)
    # Indexing float8 is not implemented everywhere; bytes are.
    cache.view(torch.uint8)[blocks, :, offsets] = stored.view(torch.uint8)
    scales[blocks, :, offsets] = scale
