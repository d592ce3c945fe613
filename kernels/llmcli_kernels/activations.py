"""What a linear layer hands out besides plain tensors.

A layer that splits its sum over several programs hands out `Partials`, and whoever reads them adds them up: no
atomics, no launch in between, the same bits every time. Owns the form; does not know who makes or wants it. Kernel
sets of a CPU use plain tensors only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Partials:
    """The output of a linear layer as summands.

    Tells shape, dtype and strides of the value it stands for as a tensor does, so that the operations' argument
    checks are the same for both.

    Attributes:
        parts: float32 [S, T, N]; the value [T, N] is their sum in index order, rounded once to `dtype`.
        dtype: of the value.
    """

    parts: Tensor
    dtype: torch.dtype

    @property
    def shape(self) -> torch.Size:
        return self.parts.shape[1:]

    def dim(self) -> int:
        return 2

    def stride(self, dim: int) -> int:
        return self.parts.stride(dim + 1 if dim >= 0 else dim)

    def is_floating_point(self) -> bool:
        return True

    def add_up(self) -> Tensor:
        """[T, N] of `dtype`."""
        return self.parts.sum(dim=0).to(self.dtype)


LinearOutput = Tensor | Partials


def as_tensor(value: LinearOutput) -> Tensor:
    """The plain tensor that a linear layer's output stands for."""
    return value.add_up() if isinstance(value, Partials) else value
