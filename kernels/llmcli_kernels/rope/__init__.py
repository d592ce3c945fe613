"""Rotary position embedding (RoFormer, 2021) with the half-split pairing of transformers' rotate_half.

Owns the shared argument checks. Does not know how the frequencies were scaled: the caller hands in the table.

    rope(q, k, positions, cos_sin) -> None, in place
        q [T, HQ, D], k [T, HKV, D] of one dtype; both may be strided views into a merged qkv row (last dim
        contiguous). positions [T] int64. cos_sin [P, R] float32, R even and at most D: row p holds the R/2
        cosines, then the R/2 sines, of position p. Elements i and i + R/2 of a head form a pair; those from
        R on pass unchanged (partial rotary). Computed in float32, rounded once. Every position must be below
        P (checked by indexing, an IndexError).
"""

import torch
from torch import Tensor


def check_rope(q: Tensor, k: Tensor, positions: Tensor, cos_sin: Tensor) -> None:
    """Raise a ValueError that names the numbers when the arguments do not fit together."""
    if q.dim() != 3 or k.dim() != 3 or q.shape[0] != k.shape[0] or q.shape[2] != k.shape[2]:
        raise ValueError(
            f"rope: q {list(q.shape)} and k {list(k.shape)} must be [T, heads, D] with the same T and D"
        )
    if q.dtype != k.dtype or not q.is_floating_point():
        raise ValueError(f"rope: q is {q.dtype}, k is {k.dtype}; one floating dtype is needed")
    if q.stride(2) != 1 or k.stride(2) != 1:
        raise ValueError(
            f"rope: the last dimension must be contiguous, strides are {q.stride(2)} and {k.stride(2)}"
        )
    if positions.shape != q.shape[:1] or positions.dtype != torch.int64:
        raise ValueError(
            f"rope: positions must be int64 [{q.shape[0]}], got {positions.dtype} {list(positions.shape)}"
        )
    if (
        cos_sin.dim() != 2
        or cos_sin.dtype != torch.float32
        or cos_sin.shape[1] % 2
        or cos_sin.shape[1] > q.shape[2]
    ):
        raise ValueError(
            f"rope: cos_sin must be float32 [P, R], R even and at most {q.shape[2]},"
            f" got {cos_sin.dtype} {list(cos_sin.shape)}"
        )
