"""Moves the small tensors of a step to the device, all in one copy.

A copy to a GPU costs some ten microseconds however little it moves, so what a step needs travels as one buffer. And
moves what it drew back, without waiting for it: the next step is prepared meanwhile.
"""

import ctypes
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes; Triton compiles another kernel for a pointer with less


def column(numbers: Sequence[float], dtype: torch.dtype) -> Tensor:
    """A tensor on the CPU, whatever torch's default device is."""
    return torch.tensor(numbers, dtype=dtype, device="cpu")


def to_device(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Contiguous CPU tensors on `device`; on a CPU themselves."""
    if device.type == "cpu":
        return list(tensors)
    buffer = pack(tensors, pinned=device.type == "cuda")
    return unpack(buffer.to(device, non_blocking=True), tensors)


def to_host(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Start to copy tensors to the CPU, behind what their device has to do now.

    Returns:
        A function that waits for the copies. The tensors themselves may be overwritten by what is started next.
    """
    if not tensors[0].is_cuda:
        copies = [tensor.clone() for tensor in tensors]
        return lambda: copies
    # Only a copy into pinned memory leaves this thread free.
    copies = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True, device="cpu") for t in tensors]
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    wait = all_done(tensors[0].device)

    def arrived() -> list[Tensor]:
        wait()
        return copies

    return arrived


def all_done(device: torch.device) -> Callable[[], None]:
    """A function that waits until the device has done what it has to do now, but not what comes after."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


def pack(tensors: Sequence[Tensor], *, pinned: bool = False) -> Tensor:
    """One uint8 tensor with the bytes of all, each at a multiple of ALIGNMENT."""
    buffer = torch.empty(sum(map(_room, tensors)), dtype=torch.uint8, pin_memory=pinned, device="cpu")
    for view, tensor in zip(unpack(buffer, tensors), tensors, strict=True):
        view.copy_(tensor)
    return buffer


def on_host(arrays: Sequence["array[Any]"], *, pinned: bool) -> Tensor:
    """What `pack` makes, of plain numbers: one copy, however many arrays there are."""
    data = b"".join(part.tobytes().ljust(_padded(part.itemsize * len(part)), b"\0") for part in arrays)
    buffer = torch.empty(len(data), dtype=torch.uint8, pin_memory=pinned, device="cpu")
    ctypes.memmove(buffer.data_ptr(), data, len(data))
    return buffer


def unpack(buffer: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views into what `pack` made, on whatever device: with the shapes and dtypes of `like`."""
    views, start = [], 0
    for tensor in like:
        views.append(buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape))
        start += _room(tensor)
    return views


def _room(tensor: Tensor) -> int:
    return _padded(tensor.nbytes)


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT
