"""Writes the keys and values of a step into the paged cache.

Owns the shared argument checks and the meaning of a slot. Does not know sequences or block tables.

    kv_write(k, v, k_cache, v_cache, slots) -> None, in place
        k, v [T, HKV, D] (may be strided views, last dim contiguous); k_cache, v_cache [num_blocks, HKV, B,
        D] contiguous; all of one dtype. slots [T] int64: token t goes to block slots[t] // B, offset
        slots[t] % B. Slots are distinct and at least 0; one past the end raises an IndexError on CPU.
"""

import torch
from torch import Tensor


def check_kv_write(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """Raise a ValueError that names the numbers when the arguments do not fit together."""
    if k.dim() != 3 or k.shape != v.shape or k.stride(2) != 1 or v.stride(2) != 1:
        raise ValueError(
            f"kv_write: k {list(k.shape)} and v {list(v.shape)} must be alike,"
            " [T, HKV, D], last dim contiguous"
        )
    if (
        k_cache.dim() != 4
        or k_cache.shape != v_cache.shape
        or not (k_cache.is_contiguous() and v_cache.is_contiguous())
    ):
        raise ValueError(
            f"kv_write: k_cache {list(k_cache.shape)} and v_cache {list(v_cache.shape)} "
            "must be alike, contiguous, 4-D"
        )
    if k_cache.shape[1] != k.shape[1] or k_cache.shape[3] != k.shape[2]:
        raise ValueError(
            f"kv_write: caches {list(k_cache.shape)} do not hold keys of {list(k.shape[1:])} heads x size"
        )
    if not k.dtype == v.dtype == k_cache.dtype == v_cache.dtype:
        raise ValueError(f"kv_write: dtypes differ: {k.dtype}, {v.dtype}, {k_cache.dtype}, {v_cache.dtype}")
    if slots.shape != k.shape[:1] or slots.dtype != torch.int64:
        raise ValueError(
            f"kv_write: slots must be int64 [{k.shape[0]}], got {slots.dtype} {list(slots.shape)}"
        )
