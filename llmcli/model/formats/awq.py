"""AWQ (arXiv 2306.00978) as AutoAWQ stores it, as what kernel sets pack, bit for bit.

    gemm   qweight int32 [K, N/8], qzeros int32 [K/g, N/8], scales float16 [K/g, N];
           nibble j of a word belongs to column [0, 2, 4, 6, 1, 3, 5, 7][j] of its eight
    gemv   qweight int32 [N, K/8], qzeros int32 [N, W], scales float16 [N, 8 W]; nibbles in natural order,
           the groups padded to 8 W of them

In both w = (q - zero) * scale. Without zero points the zero is 8. Knows no file: tensors come from `model/weights.py`,
on whatever device.
"""

import torch
from torch import Tensor

from llmcli_kernels.int4_linear import Int4Weight
from llmcli_kernels.int4_linear.forms import Int4Columns

COLUMN_OF_NIBBLE = (0, 2, 4, 6, 1, 3, 5, 7)
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


def from_gemm(qweight: Tensor, qzeros: Tensor | None, scales: Tensor, group_size: int) -> Int4Columns:
    """The gemm form as it lies; qzeros None means symmetric."""
    if qzeros is None:
        groups, n = scales.shape
        zeros = torch.full((groups, n // 2), SYMMETRIC_ZERO * 0x11, dtype=torch.uint8, device=scales.device)
        qzeros = zeros.view(torch.int32)
    return Int4Columns(qweight, qzeros, scales, group_size, COLUMN_OF_NIBBLE)


def from_gemv(qweight: Tensor, qzeros: Tensor | None, scales: Tensor, group_size: int) -> Int4Weight:
    """The gemv form without the padding of its groups; its q are as it lies."""
    n, groups = qweight.shape[0], qweight.shape[1] * 8 // group_size
    if qzeros is None:
        zeros = torch.full((n, groups), SYMMETRIC_ZERO, dtype=torch.uint8, device=scales.device)
    else:
        packed = qzeros.contiguous().view(torch.uint8)
        zeros = torch.stack((packed & 15, packed >> 4), dim=-1).reshape(n, -1)[:, :groups].contiguous()
    return Int4Weight(
        q=qweight.contiguous().view(torch.uint8),
        zeros=zeros,
        scales=scales[:, :groups].contiguous(),
        group_size=group_size,
    )


def pack_gemm(q: Tensor, zeros: Tensor, scales: Tensor) -> dict[str, Tensor]:
    """The gemm form of a layer, by the names of its tensors.

    Args:
        q: [N, K] integers of 4 bits, any integer dtype; N a multiple of 8.
        zeros, scales: [N, K/g].
    """
    return {
        "qweight": _words(q.t()),
        "qzeros": _words(zeros.t()),
        "scales": scales.t().contiguous().to(torch.float16),
    }


def unpack_gemm(qweight: Tensor, qzeros: Tensor, scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of `pack_gemm`: q [N, K] and zeros [N, K/g] as uint8, scales [N, K/g] float16."""
    return _columns(qweight).t(), _columns(qzeros).t(), scales.t()


def _words(rows: Tensor) -> Tensor:
    """[R, N] integers of 4 bits -> [R, N/8] int32."""
    nibbles = rows.to(torch.uint8).reshape(rows.shape[0], -1, 8)[:, :, list(COLUMN_OF_NIBBLE)]
    packed = nibbles[:, :, 0::2] | (nibbles[:, :, 1::2] << 4)
    return packed.contiguous().view(torch.int32).squeeze(-1)


def _columns(words: Tensor) -> Tensor:
    """[R, N/8] int32 -> [R, N] uint8."""
    packed = words.contiguous().view(torch.uint8).reshape(*words.shape, 4)
    nibbles = torch.stack((packed & 15, packed >> 4), dim=-1).reshape(*words.shape, 8)
    columns = torch.empty_like(nibbles)
    columns[:, :, list(COLUMN_OF_NIBBLE)] = nibbles
    return columns.reshape(words.shape[0], -1)
