"""Fast rotary embedding on a CPU: q and k in one go when they lie side by side in a merged row."""

import torch
from torch import Tensor


def rope(q: Tensor, k: Tensor, positions: Tensor, cos_sin: Tensor) -> None:
    cos, sin = cos_sin[positions].unsqueeze(1).chunk(2, dim=-1)
    if (
        k.stride() == q.stride()
        and k.data_ptr() == q.data_ptr() + q.shape[1] * q.stride(1) * q.element_size()
    ):
        heads = q.shape[1] + k.shape[1]
        _rotate(q.as_strided((q.shape[0], heads, q.shape[2]), q.stride()), cos, sin)
    else:
        _rotate(q, cos, sin)
        _rotate(k, cos, sin)


def _rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> None:
    halves = heads[..., : 2 * cos.shape[-1]].unflatten(-1, (2, -1))
    wide = halves.to(torch.float32)
    turned = wide * cos.unsqueeze(2)
    turned[:, :, 0].addcmul_(wide[:, :, 1], sin, value=-1)
    turned[:, :, 1].addcmul_(wide[:, :, 0], sin)
    halves.copy_(turned)
