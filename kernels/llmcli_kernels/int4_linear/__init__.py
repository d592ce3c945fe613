"""Linear layers with 4-bit weights in groups along k (AWQ, Lin et al., 2023): w[n, k] = (q - zero) * scale.

Owns `Int4Weight`, the plain form that every checkpoint format can be brought to, and the shared argument checks.
Does not know checkpoint formats, nor the packed layouts of the implementations.

    pack_int4(weight, dtype) -> packed
        The layout that int4_linear of the same kernel set wants for activations of `dtype` (float32,
        bfloat16 or float16). Whatever it is, it has N, K and nbytes, and holds the weights once. `weight` is
        an `Int4Weight` or another form (`forms.py`), and is not needed after.
    int4_linear(x, packed, bias) -> y
        x [M, K] of the dtype that was packed for (rows contiguous), bias [N] of that dtype or None; y [M, N]
        = x @ w.T + bias in x.dtype, summed in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

ACTIVATION_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class Int4Weight:
    """A quantized matrix in plain, unpermuted order.

    Attributes:
        q: uint8 [N, K/2]; byte j of a row holds k = 2j in its low nibble and k = 2j + 1 in its high one.
        zeros: uint8 [N, K/group_size].
        scales: float16 [N, K/group_size], the checkpoint's own bits.
        group_size: number of neighbouring k that share a zero and a scale; divides K.

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """

    q: Tensor
    zeros: Tensor
    scales: Tensor
    group_size: int

    def __post_init__(self) -> None:
        if self.q.dim() != 2 or self.q.dtype != torch.uint8:
            raise ValueError(f"Int4Weight: q must be uint8 [N, K/2], got {self.q.dtype} {list(self.q.shape)}")
        if self.group_size < 1 or self.K % self.group_size:
            raise ValueError(f"Int4Weight: group_size {self.group_size} does not divide K {self.K}")
        groups = (self.N, self.K // self.group_size)
        if self.zeros.shape != groups or self.zeros.dtype != torch.uint8:
            raise ValueError(
                f"Int4Weight: zeros must be uint8 {groups}, got {self.zeros.dtype} {list(self.zeros.shape)}"
            )
        if self.scales.shape != groups or self.scales.dtype != torch.float16:
            raise ValueError(
                f"Int4Weight: scales must be float16 {groups},"
                f" got {self.scales.dtype} {list(self.scales.shape)}"
            )

    @property
    def N(self) -> int:
        return self.q.shape[0]

    @property
    def K(self) -> int:
        return self.q.shape[1] * 2

    @property
    def nbytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in (self.q, self.zeros, self.scales))

    def plain(self) -> "Int4Weight":
        """Itself: see `Int4Columns.plain`."""
        return self

    def integers(self) -> Tensor:
        """The nibbles, uint8 [N, K]."""
        return torch.stack((self.q & 15, self.q >> 4), dim=-1).reshape(self.N, self.K)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weights [N, K], computed in float32 and rounded once to dtype."""
        grouped = self.integers().to(torch.float32).view(self.N, -1, self.group_size)
        grouped = grouped.sub_(self.zeros.to(torch.float32).unsqueeze(-1)).mul_(
            self.scales.to(torch.float32).unsqueeze(-1)
        )
        return grouped.view(self.N, self.K).to(dtype)

    @staticmethod
    def cat(weights: Sequence["Int4Weight"]) -> "Int4Weight":
        """One matrix of all rows, in order, as for merged q, k, v; K and group_size must agree."""
        forms = {(weight.K, weight.group_size) for weight in weights}
        if len(forms) != 1:
            raise ValueError(f"Int4Weight.cat: K and group_size must agree, got {sorted(forms)}")
        return Int4Weight(
            q=torch.cat([weight.q for weight in weights]),
            zeros=torch.cat([weight.zeros for weight in weights]),
            scales=torch.cat([weight.scales for weight in weights]),
            group_size=weights[0].group_size,
        )


class Int4Matrix(Protocol):
    """What `pack_int4` is given: `Int4Weight`, or another form that can be brought to it."""

    @property
    def N(self) -> int: ...
    @property
    def K(self) -> int: ...
    @property
    def group_size(self) -> int: ...
    def plain(self) -> Int4Weight: ...


class PackedInt4(Protocol):
    """What is known of every implementation's packed weights."""

    @property
    def N(self) -> int: ...
    @property
    def K(self) -> int: ...
    @property
    def nbytes(self) -> int: ...


def check_pack_int4(weight: Int4Matrix, dtype: torch.dtype) -> None:
    """Raise a ValueError for a dtype that no implementation computes in."""
    if dtype not in ACTIVATION_DTYPES:
        raise ValueError(
            f"pack_int4: dtype must be one of {', '.join(map(str, ACTIVATION_DTYPES))}, got {dtype}"
        )


def check_int4_linear(x: Tensor, packed: PackedInt4, bias: Tensor | None) -> None:
    """Raise a ValueError that names the numbers when the arguments do not fit together."""
    if x.dim() != 2 or x.shape[1] != packed.K or x.stride(1) != 1:
        raise ValueError(f"int4_linear: x must be [M, {packed.K}] with contiguous rows, got {list(x.shape)}")
    if x.dtype not in ACTIVATION_DTYPES:
        raise ValueError(
            f"int4_linear: x must be one of {', '.join(map(str, ACTIVATION_DTYPES))}, got {x.dtype}"
        )
    if bias is not None and (bias.shape != (packed.N,) or bias.dtype != x.dtype):
        raise ValueError(
            f"int4_linear: bias must be {x.dtype} [{packed.N}], got {bias.dtype} {list(bias.shape)}"
        )
