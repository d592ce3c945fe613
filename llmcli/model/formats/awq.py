"""AWQ (arXiv 2306.00978) as AutoAWQ stores it, turned into `Int4Weight` bit for bit.

    gemm   qweight int32 [K, N/8], qzeros int32 [K/g, N/8], scales float16 [K/g, N];
           nibble j of a word belongs to column [0, 2, 4, 6, 1, 3, 5, 7][j] of its eight
    gemv   qweight int32 [N, K/8], qzeros int32 [N, W], scales float16 [N, 8 W]; nibbles in natural order,
           the groups padded to 8 W of them

In both w = (q - zero) * scale. Without zero points the zero is 8. Knows no file: tensors come from `model/weights.py`.
"""

import torch
from torch import Tensor

from llmcli_kernels.int4_linear import Int4Weight

NIBBLE_OF_COLUMN = (0, 4, 1, 5, 2, 6, 3, 7)
SYMMETRIC_ZERO = 8


def expected_shapes(version: str, n: int, k: int, group_size: int) -> dict[str, tuple[int, int]]:
    """Shapes of qweight, qzeros and scales for a layer of n outputs and k inputs."""
    groups = k // group_size
    if version == "gemm":
        return {"qweight": (k, n // 8), "qzeros": (groups, n // 8), "scales": (groups, n)}
    width = gemv_zeros_width(k, group_size)
    return {"qweight": (n, k // 8), "qzeros": (n, width), "scales": (n, width * 8)}


def gemv_zeros_width(k: int, group_size: int) -> int:
    """Words per row of the gemv form's zeros: AutoAWQ pads to a multiple that depends on the group size."""
    step = 1 if group_size >= 128 else 128 // group_size
    words = -(-(k // group_size) // 8)
    return -(-words // step) * step


def from_gemm(qweight: Tensor, qzeros: Tensor | None, scales: Tensor, group_size: int) -> Int4Weight:
    """Normalise the gemm form; qzeros None means symmetric."""
    n, groups = scales.shape[1], scales.shape[0]
    zeros = _symmetric_zeros(n, groups) if qzeros is None else _columns(qzeros).t().contiguous()
    nibbles = _columns(qweight).t()
    return Int4Weight(
        q=(nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)).contiguous(),
        zeros=zeros,
        scales=scales.t().contiguous(),
        group_size=group_size,
    )


def from_gemv(qweight: Tensor, qzeros: Tensor | None, scales: Tensor, group_size: int) -> Int4Weight:
    """Normalise the gemv form; its bytes are in the internal order already."""
    n, groups = qweight.shape[0], qweight.shape[1] * 8 // group_size
    if qzeros is None:
        zeros = _symmetric_zeros(n, groups)
    else:
        packed = qzeros.contiguous().view(torch.uint8)
        zeros = torch.stack((packed & 15, packed >> 4), dim=-1).reshape(n, -1)[:, :groups].contiguous()
    return Int4Weight(
        q=qweight.contiguous().view(torch.uint8).clone(),
        zeros=zeros,
        scales=scales[:, :groups].contiguous(),
        group_size=group_size,
    )


def _symmetric_zeros(n: int, groups: int) -> Tensor:
    return torch.full((n, groups), SYMMETRIC_ZERO, dtype=torch.uint8)


def _columns(words: Tensor) -> Tensor:
    """int32 [R, N/8] in gemm order -> uint8 [R, N], one nibble a byte."""
    packed = words.contiguous().view(torch.uint8).view(words.shape[0], -1, 4)
    nibbles = torch.stack((packed & 15, packed >> 4), dim=-1).view(words.shape[0], -1, 8)
    return nibbles[:, :, NIBBLE_OF_COLUMN].reshape(words.shape[0], -1)
