"""Moves the small tensors of a step to the device, all in one copy.

A copy to a GPU costs some ten microseconds however little it moves, so what a step needs travels as one buffer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes; Triton compiles another kernel for a pointer with less


def to_device(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Contiguous CPU tensors on `device`; on a CPU themselves."""
    if device.type == "cpu":
        return list(tensors)
    buffer = pack(tensors, pinned=device.type == "cuda")
    return unpack(buffer.to(device, non_blocking=True), tensors)


def pack(tensors: Sequence[Tensor], *, pinned: bool = False) -> Tensor:
    """One uint8 tensor with the bytes of all, each at a multiple of ALIGNMENT."""
    buffer = torch.empty(sum(map(_room, tensors)), dtype=torch.uint8, pin_memory=pinned)
    for view, tensor in zip(unpack(buffer, tensors), tensors, strict=True):
        view.copy_(tensor)
    return buffer


def unpack(buffer: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views into what `pack` made, on whatever device: with the shapes and dtypes of `like`."""
    views, start = [], 0
    for tensor in like:
        views.append(buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        start += _room(tensor)
    return views


def _room(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
