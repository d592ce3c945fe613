"""The memory of the KV cache."""

import torch

from llmcli.config import ResolvedConfig, human_bytes
from llmcli.errors import DoesNotFitError
from llmcli.model.forward_batch import KVCache
from llmcli.model.spec import ModelSpec


def allocate_kv_cache(config: ResolvedConfig, spec: ModelSpec) -> KVCache:
    """Reserve all blocks of all layers; pages are touched, and so paid for, when they are first written.

    Raises:
        DoesNotFitError: the system refuses the memory.
    """
    shape = (config.num_blocks, spec.num_kv_heads, config.block_size, spec.head_dim)
    dtype = getattr(torch, config.dtype)
    try:
        # one allocation a layer and side, so that the system can hand out the pages lazily
        keys = tuple(torch.empty(shape, dtype=dtype) for _ in range(spec.num_layers))
        values = tuple(torch.empty(shape, dtype=dtype) for _ in range(spec.num_layers))
    except RuntimeError as error:
        raise DoesNotFitError(
            f"the KV cache of {human_bytes(config.kv_bytes)} can not be reserved",
            why=str(error).splitlines()[0],
            fix="use a smaller --kv-cache-memory",
        ) from None
    return KVCache(keys, values)
