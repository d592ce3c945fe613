"""Linear layers of the decoder: dense, int4, or several of them side by side.

A layer hides its weight format from the decoder; q/k/v and gate/up are merged into one where their formats agree.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli_kernels import KernelSet
from llmcli_kernels.activations import LinearOutput, as_tensor
from llmcli_kernels.int4_linear import Int4Weight, PackedInt4
from llmcli_kernels.int4_linear.forms import Int4Columns, Int4Stack

Int4 = Int4Weight | Int4Columns


class Linear(Protocol):
    """x [T, K] -> [T, N], in x's dtype if nothing else is said."""

    def __call__(self, x: Tensor) -> LinearOutput: ...


class DenseLinear:
    """weight [N, K], bias [N] or None, both in the activations' dtype."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Int8Linear:
    """A matrix [N, K] in 8 bits, packed by the kernel set; the output is float32."""

    def __init__(self, kernels: KernelSet, weight: Tensor) -> None:
        self.kernels = kernels
        self.packed = kernels.pack_int8(weight)

    def __call__(self, x: Tensor) -> Tensor:
        return self.kernels.int8_linear(x, self.packed)


class Int4Linear:
    """Weights packed by the kernel set for activations of one dtype; bias [N] in that dtype or None."""

    def __init__(self, kernels: KernelSet, packed: PackedInt4, bias: Tensor | None) -> None:
        self.kernels = kernels
        self.packed = packed
        self.bias = bias

    def __call__(self, x: Tensor) -> LinearOutput:
        return self.kernels.int4_linear(x, self.packed, self.bias)


class ConcatLinear:
    """Layers of different formats whose outputs stand side by side."""

    def __init__(self, parts: Sequence[Linear]) -> None:
        self.parts = tuple(parts)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([as_tensor(part(x)) for part in self.parts], dim=-1)


def merge(
    weights: Sequence[Tensor | Int4],
    biases: Sequence[Tensor | None],
    kernels: KernelSet,
    dtype: torch.dtype,
) -> Linear:
    """One layer for several matrices that share their input, in order.

    Args:
        weights: dense [N_i, K] tensors or 4-bit ones.
        biases: one for each weight, [N_i] or None.
    """
    dense = [weight for weight in weights if isinstance(weight, Tensor)]
    int4 = [weight for weight in weights if not isinstance(weight, Tensor)]
    if not int4:
        whole = dense[0] if len(dense) == 1 else torch.cat(dense)
        return DenseLinear(whole, _merge_biases(weights, biases, dtype))
    if not dense and len({weight.group_size for weight in int4}) == 1:
        matrix = int4[0] if len(int4) == 1 else Int4Stack(tuple(int4))
        packed = kernels.pack_int4(matrix, dtype)
        return Int4Linear(kernels, packed, _merge_biases(weights, biases, dtype))
    return ConcatLinear([merge([w], [b], kernels, dtype) for w, b in zip(weights, biases, strict=True)])


def _merge_biases(
    weights: Sequence[Tensor | Int4], biases: Sequence[Tensor | None], dtype: torch.dtype
) -> Tensor | None:
    if all(bias is None for bias in biases):
        return None
    sizes = [w.shape[0] if isinstance(w, Tensor) else w.N for w in weights]
    return torch.cat(
        [torch.zeros(n, dtype=dtype) if b is None else b for n, b in zip(sizes, biases, strict=True)]
    )
