"""What stands between the merged qkv projection and attention: head norms, rotary embedding, the cache write.

Owns `QKNorm`, the shared argument checks and the meaning of a slot. Does not know sequences or block tables, nor
how the frequencies were scaled: the caller hands in the table.

    rope_kv_write(qkv, positions, slots, cos_sin, kv, num_heads, qk_norm) -> q [T, HQ, D]
        qkv [T, (HQ + 2 HKV) · D]: a tensor (last dimension contiguous) or the Partials of a linear layer, which are
        added up here and rounded once. A row holds the heads of q, then of k, then of v. It is used up: an
        implementation may overwrite it, and q may be a view into it.
        1. With qk_norm every head of q and k is RMS-normalised, in the order of `rms_norm`: in float32, rounded,
           times the weight.
        2. q and k are rotated (RoFormer, 2021) with the half-split pairing of transformers' rotate_half. positions
           [T] int64; cos_sin [P, R] float32, contiguous, R even and at most D: row p holds the R/2 cosines, then the
           R/2 sines, of position p. Elements i and i + R/2 of a head form a pair; those from R on pass unchanged
           (partial rotary). Computed in float32, rounded once.
        3. k and v of token t are written to block slots[t] // B, offset slots[t] % B, of kv, in its storage dtype
           (`paged_kv.quantize` says how 8-bit storage rounds). slots [T] int64, distinct.
        q has last dimension contiguous; from Triton's set it is a new contiguous tensor.
        Positions must be in 0..P-1 and slots in the cache. On a CPU one past the end is an IndexError; Triton's
        kernel does not look, for it would have to wait for the GPU: it reads and writes wherever they point.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli_kernels.activations import Partials
from llmcli_kernels.paged_kv import PagedKV


@dataclass(frozen=True, eq=False)
class QKNorm:
    """RMS norm of each head of q and k before the rotation, as Qwen3 has it.

    Attributes:
        q_weight, k_weight: [D], of the dtype of qkv.
        eps: added to the mean of the squares.
    """

    q_weight: Tensor
    k_weight: Tensor
    eps: float


def check_rope_kv_write(
    qkv: Tensor | Partials,
    positions: Tensor,
    slots: Tensor,
    cos_sin: Tensor,
    kv: PagedKV,
    num_heads: int,
    qk_norm: QKNorm | None,
) -> None:
    """Raise a ValueError that names the numbers when the arguments do not fit together."""
    size = kv.head_size
    width = (num_heads + 2 * kv.num_kv_heads) * size
    if num_heads < 1 or qkv.dim() != 2 or qkv.shape[1] != width or qkv.stride(1) != 1:
        raise ValueError(
            f"rope_kv_write: qkv {list(qkv.shape)} must be [T, {width}] for {num_heads} + 2 · {kv.num_kv_heads}"
            f" heads of {size}, last dim contiguous"
        )
    if not qkv.is_floating_point() or not (kv.quantized or kv.keys.dtype == qkv.dtype):
        raise ValueError(f"rope_kv_write: qkv is {qkv.dtype}, the cache {kv.keys.dtype}")
    for name, numbers in (("positions", positions), ("slots", slots)):
        wrong = numbers.shape != qkv.shape[:1] or numbers.dtype != torch.int64
        if wrong or not numbers.is_contiguous():
            raise ValueError(
                f"rope_kv_write: {name} must be int64 [{qkv.shape[0]}], contiguous,"
                f" got {numbers.dtype} {list(numbers.shape)}"
            )
    if (
        cos_sin.dim() != 2
        or cos_sin.dtype != torch.float32
        or cos_sin.shape[1] % 2
        or cos_sin.shape[1] > size
        or not cos_sin.is_contiguous()
    ):
        raise ValueError(
            f"rope_kv_write: cos_sin must be float32 [P, R], contiguous, R even and at most {size},"
            f" got {cos_sin.dtype} {list(cos_sin.shape)}"
        )
    if qk_norm is not None:
        _check_qk_norm(qk_norm, qkv.dtype, size)


def _check_qk_norm(norm: QKNorm, dtype: torch.dtype, size: int) -> None:
    for name, weight in (("q_weight", norm.q_weight), ("k_weight", norm.k_weight)):
        if weight.shape != (size,) or weight.dtype != dtype or not weight.is_contiguous():
            raise ValueError(
                f"rope_kv_write: {name} must be {dtype} [{size}], got {weight.dtype} {list(weight.shape)}"
            )
    if not 0 <= norm.eps < math.inf:
        raise ValueError(f"rope_kv_write: eps must be at least 0, got {norm.eps}")
