"""`PagedKV`: the paged cache of one layer, and how keys and values are stored in 8 bits.

Owns the form that the operation which writes the cache and the one which reads it agree on. Does not know
sequences or block tables.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}  # of the 8-bit types


@dataclass(frozen=True, eq=False)
class PagedKV:
    """Keys and values of one layer.

    Attributes:
        keys, values: contiguous [num_blocks, HKV, B, D], in the dtype of the activations, or in int8 or
            float8_e4m3fn.
        key_scales, value_scales: float32 [num_blocks, HKV, B] beside 8-bit storage, else None; an entry is
            stored · scale. One scale a token and head (as in KVQuant, Hooper et al., 2024, for values).

    Raises:
        ValueError: the parts do not fit together.
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None

    def __post_init__(self) -> None:
        keys, values = self.keys, self.values
        alike = keys.shape == values.shape and keys.dtype == values.dtype
        if keys.dim() != 4 or not alike or not (keys.is_contiguous() and values.is_contiguous()):
            raise ValueError(
                f"PagedKV: keys {keys.dtype} {list(keys.shape)} and values {values.dtype} {list(values.shape)}"
                " must be alike, contiguous, 4-D"
            )
        for name, scales in (("key_scales", self.key_scales), ("value_scales", self.value_scales)):
            if (scales is not None) != self.quantized:
                raise ValueError(
                    f"PagedKV: {name} belong to int8 and float8_e4m3fn, the cache is {keys.dtype}"
                )
            unfit = scales is not None and not (scales.shape == keys.shape[:3] and scales.is_contiguous())
            if scales is not None and (unfit or scales.dtype != torch.float32):
                raise ValueError(
                    f"PagedKV: {name} must be contiguous float32 {list(keys.shape[:3])},"
                    f" got {scales.dtype} {list(scales.shape)}"
                )

    @property
    def quantized(self) -> bool:
        return self.keys.dtype in LARGEST

    @property
    def num_kv_heads(self) -> int:
        return self.keys.shape[1]

    @property
    def block_size(self) -> int:
        return self.keys.shape[2]

    @property
    def head_size(self) -> int:
        return self.keys.shape[3]


def quantize(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Store the last dimension of x in 8 bits.

    Returns:
        The stored numbers, of x's shape, and their scales, float32, without the last dimension. A vector with
        a NaN or an infinity gets the scale NaN, so that every reader sees it; one of zeros, or of numbers
        so small that the scale would be subnormal, the scale 0.
    """
    largest = LARGEST[dtype]
    wide = x.to(torch.float32)
    amax = wide.abs().amax(dim=-1)
    scales = torch.where(amax.isfinite(), amax / largest, torch.nan)
    # A subnormal scale has no finite inverse: such a vector is as good as zeros.
    scales = torch.where(scales < torch.finfo(torch.float32).tiny, 0.0, scales)
    inverse = torch.where(scales > 0, 1.0 / scales, 0.0)  # NaN > 0 is false
    scaled = torch.where(amax.isfinite().unsqueeze(-1), wide * inverse.unsqueeze(-1), 0.0)
    scaled = scaled.clamp(-largest, largest)
    return (scaled.round() if dtype == torch.int8 else scaled).to(dtype), scales


def dequantize(stored: Tensor, scales: Tensor | None) -> Tensor:
    """Back to float32; entries without scales are widened."""
    wide = stored.to(torch.float32)
    return wide if scales is None else wide * scales.unsqueeze(-1)
