"""How many weights a network has, from the headers of its files. Knows no torch; `show`, `list` and `pull` tell it."""

import math
from collections.abc import Mapping

from llmcli.model.checkpoint import TensorInfo
from llmcli.model.spec import ModelSpec

AWQ_PER_WORD = 8  # int4 weights in one int32 of a qweight tensor


def count_parameters(tensors: Mapping[str, TensorInfo], spec: ModelSpec) -> int:
    """Weights of the network: packed int4 ones counted singly, scales and zero points not at all."""
    total = 0
    for name, tensor in tensors.items():
        if name.endswith(".qweight"):
            total += math.prod(tensor.shape) * AWQ_PER_WORD
        elif not name.endswith((".qzeros", ".scales")) and not (
            spec.tie_word_embeddings and name == "lm_head.weight"
        ):
            total += math.prod(tensor.shape)
    return total


def short_count(parameters: int) -> str:
    """7.24B, 494M or 12,345."""
    for unit, size in (("B", 10**9), ("M", 10**6)):
        if parameters >= size:
            return f"{parameters / size:.3g}{unit}"
    return f"{parameters:,}"
