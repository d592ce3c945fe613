"""The memory of the KV cache."""

import torch
from torch import Tensor

from llmcli.config import ResolvedConfig, human_bytes
from llmcli.errors import DoesNotFitError
from llmcli.model.forward_batch import KVCache
from llmcli.model.spec import ModelSpec
from llmcli_kernels import huge_pages
from llmcli_kernels.paged_kv import LARGEST, PagedKV


def allocate_kv_cache(config: ResolvedConfig, spec: ModelSpec) -> KVCache:
    """Reserve all blocks of all layers on the device.

    A CPU's pages are touched, and so paid for, when they are first written.

    Raises:
        DoesNotFitError: the system refuses the memory of a CPU.
    """
    try:
        return KVCache(tuple(_allocate_layer(config, spec) for _ in range(spec.num_layers)))
    except (OSError, RuntimeError) as error:
        if config.device != "cpu":
            raise  # what a GPU says is told by gpu_errors.py
        raise DoesNotFitError(
            f"the KV cache of {human_bytes(config.kv_bytes)} can not be reserved",
            why=str(error).splitlines()[0],
            fix="use a smaller --kv-cache-memory",
        ) from None


def _allocate_layer(config: ResolvedConfig, spec: ModelSpec) -> PagedKV:
    """One allocation for each part, so that the system can hand out the pages lazily."""
    shape = (config.num_blocks, spec.num_kv_heads, config.block_size, spec.head_dim)
    name = "float8_e4m3fn" if config.kv_cache_dtype == "fp8" else config.kv_cache_dtype
    dtype = getattr(torch, name)

    def part(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if config.device == "cpu":
            return huge_pages.empty(shape, dtype)
        return torch.empty(shape, dtype=dtype, device=config.device)

    keys, values = part(shape, dtype), part(shape, dtype)
    if dtype not in LARGEST:
        return PagedKV(keys, values)
    return PagedKV(keys, values, part(shape[:3], torch.float32), part(shape[:3], torch.float32))
