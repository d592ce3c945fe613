"""Linear layers with 8-bit weights, one scale a row: for the output head, whose bytes a decode step reads whole.

Owns `Int8Weight`, how it is made, and the shared argument checks.

    pack_int8(weight) -> packed
        The layout that int8_linear of the same kernel set wants; it has N, K and nbytes. `weight` is not needed after.
    int8_linear(x, packed) -> y
        x [M, K] (rows contiguous); y float32 [M, N] = x @ (q * scale).T, summed in float32.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

ROWS_AT_ONCE = 4096  # that are widened to float32 while a weight is quantized


@dataclass(frozen=True, eq=False)
class Int8Weight:
    """A matrix as w[n, k] = q[n, k] * scales[n], with |q| at most 127.

    Attributes:
        q: int8 [N, K].
        scales: float32 [N].

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """

    q: Tensor
    scales: Tensor

    def __post_init__(self) -> None:
        if self.q.dim() != 2 or self.q.dtype != torch.int8:
            raise ValueError(f"Int8Weight: q must be int8 [N, K], got {self.q.dtype} {list(self.q.shape)}")
        if self.scales.shape != self.q.shape[:1] or self.scales.dtype != torch.float32:
            raise ValueError(
                f"Int8Weight: scales must be float32 [{self.N}],"
                f" got {self.scales.dtype} {list(self.scales.shape)}"
            )

    @property
    def N(self) -> int:
        return self.q.shape[0]

    @property
    def K(self) -> int:
        return self.q.shape[1]

    @property
    def nbytes(self) -> int:
        return self.q.nbytes + self.scales.nbytes

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weights [N, K], computed in float32 and rounded once to dtype."""
        return (self.q.to(torch.float32) * self.scales.unsqueeze(1)).to(dtype)

    @staticmethod
    def quantize(weight: Tensor) -> "Int8Weight":
        """Of weights [N, K], to the nearest; a row with a NaN or an infinity gets the scale NaN."""
        q = torch.empty(weight.shape, dtype=torch.int8)
        scales = torch.empty(weight.shape[0], dtype=torch.float32)
        for start in range(0, weight.shape[0], ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            wide = weight[rows].to("cpu", torch.float32)
            largest = wide.abs().amax(dim=1)
            finite = largest.isfinite()
            scales[rows] = torch.where(finite, largest / 127, torch.nan)
            inverse = 127 / largest
            inverse = torch.where(finite & inverse.isfinite(), inverse, 0.0)
            q[rows] = torch.where(finite.unsqueeze(1), wide * inverse.unsqueeze(1), 0.0).round_()
        return Int8Weight(q.to(weight.device), scales.to(weight.device))


class PackedInt8(Protocol):
    """What is known of every implementation's packed weights."""

    @property
    def N(self) -> int: ...
    @property
    def K(self) -> int: ...
    @property
    def nbytes(self) -> int: ...


def check_pack_int8(weight: Tensor) -> None:
    """Raise a ValueError for what is no matrix of real numbers."""
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError(
            f"pack_int8: weight must be floating [N, K], got {weight.dtype} {list(weight.shape)}"
        )


def check_int8_linear(x: Tensor, packed: PackedInt8) -> None:
    """Raise a ValueError that names the numbers when the arguments do not fit together."""
    if x.dim() != 2 or x.shape[1] != packed.K or x.stride(1) != 1 or not x.is_floating_point():
        raise ValueError(
            f"int8_linear: x must be floating [M, {packed.K}] with contiguous rows,"
            f" got {x.dtype} {list(x.shape)}"
        )
