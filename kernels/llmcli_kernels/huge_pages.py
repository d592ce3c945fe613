"""CPU memory in pages of 2 MiB, where Linux has them to give.

Weights are read from end to end in every step and blocks of the KV cache here and there, so that each page of 4 KiB is
looked up anew. For what stays and is large; all else is torch's.
"""

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor

HUGE = 2 << 20  # bytes


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """`torch.empty` on the CPU. Pages are taken when they are first written, huge ones only where all of one is used.

    Raises:
        OSError, RuntimeError: the system refuses so much memory.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    whole = nbytes // HUGE * HUGE
    if not whole or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=dtype)
    memory = mmap.mmap(-1, nbytes + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    data = torch.frombuffer(memory, dtype=torch.uint8)  # keeps the mapping
    start = -data.data_ptr() % HUGE
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE, start, whole)
    return data[start : start + nbytes].view(dtype).view(*shape)
