"""Rounding a matrix to 4 bits: groups along a row that share a scale and a zero point, w = (q - zero) * scale.

Owns the rounding and the search for the range of a group. Knows no layer, no file and no packing; `quantize/layer.py`
and the scale search of `quantize/awq.py` call it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli.quantize.shape import Grid

LEVELS = 15  # 4 bits: 0 to 15
SYMMETRIC_ZERO, SYMMETRIC_LEVELS = 8, 7
SMALLEST_SCALE = 2.0**-24  # of float16; a group of zeros has it
# A range is tried at its full size and shrunk to this share of it, step by step (Lin et al., arXiv 2306.00978).
SHRINKS = tuple(1 - step / 20 for step in range(1, 10))
ROWS_ELEMENTS = 1 << 22  # weights at a time, so that what a search needs besides the matrix stays small


@dataclass(frozen=True, slots=True)
class Quantized:
    """q [N, K] uint8, zeros [N, K/g] uint8, scales [N, K/g] float16."""

    q: Tensor
    zeros: Tensor
    scales: Tensor

    def dequantize(self) -> Tensor:
        """[N, K] float32."""
        grouped = self.q.reshape(*self.scales.shape, -1).float()
        grouped -= self.zeros.unsqueeze(-1)
        grouped *= self.scales.float().unsqueeze(-1)
        return grouped.reshape(self.q.shape)


def round_to_grid(weight: Tensor, grid: Grid, shrink: float = 1.0) -> Quantized:
    """Round to nearest: a group's range is that of its weights and zero, times `shrink`.

    Args:
        weight: [N, K] float32, K a multiple of the group size.
    """
    groups = weight.reshape(weight.shape[0], -1, grid.group_size)
    if grid.zero_point:
        low = groups.amin(-1).clamp_(max=0) * shrink
        high = groups.amax(-1).clamp_(min=0) * shrink
        scales = _as_float16((high - low) / LEVELS)
        zeros = (-low / scales.float()).round_().clamp_(0, LEVELS)
    else:
        scales = _as_float16(groups.abs().amax(-1) * (shrink / SYMMETRIC_LEVELS))
        zeros = torch.full_like(scales, SYMMETRIC_ZERO, dtype=torch.float32)
    # Rounded with the scale as it is stored, so that no second rounding adds to the error.
    q = (groups / scales.float().unsqueeze(-1)).round_().add_(zeros.unsqueeze(-1)).clamp_(0, LEVELS)
    return Quantized(q.to(torch.uint8).reshape(weight.shape), zeros.to(torch.uint8), scales)


def fit_to_grid(weight: Tensor, grid: Grid, moments: Tensor | None = None) -> Quantized:
    """Round with the range of each group that has the least squared error.

    Args:
        weight: [N, K] float32.
        moments: [K/g, g, g], the mean of x xᵀ over the inputs x of each group: the error is then that of the
            products, else that of the weights.
    """
    parts = [_fit_rows(rows, grid, moments) for rows in row_chunks(weight)]
    return Quantized(
        torch.cat([part.q for part in parts]),
        torch.cat([part.zeros for part in parts]),
        torch.cat([part.scales for part in parts]),
    )


def row_chunks(weight: Tensor) -> Iterator[Tensor]:
    """The rows of a matrix, some at a time."""
    yield from weight.split(max(1, ROWS_ELEMENTS // weight.shape[1]))


def _fit_rows(weight: Tensor, grid: Grid, moments: Tensor | None) -> Quantized:
    best = round_to_grid(weight, grid)
    least = _group_errors(weight, best, moments)
    for shrink in SHRINKS:
        trial = round_to_grid(weight, grid, shrink)
        errors = _group_errors(weight, trial, moments)
        best = _choose(errors < least, trial, best)
        least = torch.minimum(errors, least)
    return best


def _group_errors(weight: Tensor, quantized: Quantized, moments: Tensor | None) -> Tensor:
    """[N, K/g]."""
    difference = (weight - quantized.dequantize()).reshape(*quantized.scales.shape, -1)
    if moments is None:
        return difference.square().sum(-1)
    by_group = difference.transpose(0, 1)
    return (torch.bmm(by_group, moments) * by_group).sum(-1).t()


def _choose(first: Tensor, one: Quantized, other: Quantized) -> Quantized:
    """For each group, `one` where `first` is true, else `other`."""
    grouped = (*first.shape, -1)
    q = torch.where(first.unsqueeze(-1), one.q.reshape(grouped), other.q.reshape(grouped))
    return Quantized(
        q.reshape(one.q.shape),
        torch.where(first, one.zeros, other.zeros),
        torch.where(first, one.scales, other.scales),
    )


def _as_float16(scales: Tensor) -> Tensor:
    return scales.clamp_(min=SMALLEST_SCALE).to(torch.float16)
