"""How much of a GPU's memory goes to neither weights nor KV cache: measured while the largest steps run.

An estimate would have to be on the safe side for every GPU, library and kernel, and each byte of that is a token less
in the KV cache. Knows no plan; what is run is the caller's. Called by `engine/build.py`, used by `plan.resolve`.
"""

from collections.abc import Callable
from typing import Any

ALLOCATION_BYTES = 2 << 20  # torch rounds large tensors up to a multiple of it


def held_memory() -> int:
    """Bytes of the GPU that torch holds now."""
    import torch

    return torch.cuda.memory_reserved()


def measure_workspace(
    run: Callable[[], None], *, free_before: int, held_before: int, weights: int, cuda: Any
) -> int:
    """Bytes that are taken at the worst moment of `run`, beyond those of the weights.

    Args:
        run: runs the largest steps, with a KV cache of next to no size.
        free_before: bytes of the GPU that were free before the weights came.
        held_before: bytes that torch held then, for other models of this process.
        weights: bytes that the plan counts for them; whatever they take beyond is workspace.
        cuda: the module torch.cuda.
    """
    cuda.synchronize()
    cuda.empty_cache()
    cuda.reset_peak_memory_stats()
    run()
    cuda.synchronize()
    free, _ = cuda.mem_get_info()
    # Kernels and libraries take memory that torch does not count; so may other programs, meanwhile.
    uncounted = free_before - free - (cuda.memory_reserved() - held_before)
    return int(cuda.max_memory_reserved() - held_before - weights + max(uncounted, 0))
