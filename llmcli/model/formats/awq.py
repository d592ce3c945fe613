"""AWQ (arXiv 2306.00978) as AutoAWQ stores it, turned into `Int4Weight` bit for bit.

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

NIBBLE_OF_COLUMN = (0, 4, 1, 5, 2, 6, 3, 7)
COLUMNS_OF_LOW = (0, 4, 1, 5)  # of the low nibble of each byte of a word; COLUMNS_OF_HIGH of the high one
COLUMNS_OF_HIGH = (2, 6, 3, 7)
LOW_NIBBLES = 0x0F0F0F0F
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
    zeros = _symmetric_zeros(n, groups, scales) if qzeros is None else _columns(qzeros).t().contiguous()
    return Int4Weight(
        q=_rows_of_pairs(qweight),
        zeros=zeros,
        scales=scales.t().contiguous(),
        group_size=group_size,
    )


def from_gemv(qweight: Tensor, qzeros: Tensor | None, scales: Tensor, group_size: int) -> Int4Weight:
    """Normalise the gemv form; its bytes are in the internal order already."""
    n, groups = qweight.shape[0], qweight.shape[1] * 8 // group_size
    if qzeros is None:
        zeros = _symmetric_zeros(n, groups, scales)
    else:
        packed = qzeros.contiguous().view(torch.uint8)
        zeros = torch.stack((packed & 15, packed >> 4), dim=-1).reshape(n, -1)[:, :groups].contiguous()
    return Int4Weight(
        q=qweight.contiguous().view(torch.uint8).clone(),
        zeros=zeros,
        scales=scales[:, :groups].contiguous(),
        group_size=group_size,
    )


def _rows_of_pairs(qweight: Tensor) -> Tensor:
    """gemm words int32 [K, N/8] -> uint8 [N, K/2], two neighbouring k a byte.

    Pairs are made on whole words, four columns at a time, so that only words and bytes have to change places.
    """
    even, odd = qweight[0::2], qweight[1::2]
    low = (even & LOW_NIBBLES) | ((odd & LOW_NIBBLES) << 4)
    high = ((even >> 4) & LOW_NIBBLES) | (odd & ~LOW_NIBBLES)
    pairs, eighth = even.shape
    rows = torch.empty((eighth, 8, pairs), dtype=torch.uint8, device=qweight.device)
    for words, columns in ((low, COLUMNS_OF_LOW), (high, COLUMNS_OF_HIGH)):
        by_column = words.t().contiguous().view(torch.uint8).view(eighth, pairs, 4)
        for byte, column in enumerate(columns):
            rows[:, column] = by_column[:, :, byte]
    return rows.view(eighth * 8, pairs)


def _symmetric_zeros(n: int, groups: int, scales: Tensor) -> Tensor:
    return torch.full((n, groups), SYMMETRIC_ZERO, dtype=torch.uint8, device=scales.device)


def _columns(words: Tensor) -> Tensor:
    """int32 [R, N/8] in gemm order -> uint8 [R, N], one nibble a byte."""
    packed = words.contiguous().view(torch.uint8).view(words.shape[0], -1, 4)
    nibbles = torch.stack((packed & 15, packed >> 4), dim=-1).view(words.shape[0], -1, 8)
    return nibbles[:, :, NIBBLE_OF_COLUMN].reshape(words.shape[0], -1)
