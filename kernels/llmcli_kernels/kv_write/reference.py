"""Plain PyTorch cache write: the truth that faster kernels are compared with."""

import torch
from torch import Tensor


def kv_write(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    block_size = k_cache.shape[2]
    blocks = torch.div(slots, block_size, rounding_mode="floor")
    offsets = slots % block_size
    k_cache[blocks, :, offsets] = k
    v_cache[blocks, :, offsets] = v
