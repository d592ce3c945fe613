"""Plain PyTorch rotary embedding: the truth that faster kernels are compared with."""

import torch
from torch import Tensor


def rope(q: Tensor, k: Tensor, positions: Tensor, cos_sin: Tensor) -> None:
    cos, sin = cos_sin[positions].unsqueeze(1).chunk(2, dim=-1)
    half = cos.shape[-1]
    for heads in (q, k):
        first = heads[..., :half].to(torch.float32)
        second = heads[..., half : 2 * half].to(torch.float32)
        turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
        heads[..., : 2 * half] = turned.to(heads.dtype)
