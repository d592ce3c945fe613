"""Draws the next token of every row of logits.

Owns `SamplingBatch`, the exact definition of the filters, and the shared argument checks. Does not know
penalties, bans or seeds: they are in the logits and in the uniform numbers already.

    sample(logits, params) -> (ids, finite)
        logits [S, V] float32, contiguous, unchanged; -inf bans a token. ids [S] int64, finite [S] bool.
        A row with NaN or +inf, or with nothing but -inf, gives finite False and id 0. Else:
        temperature 0: the largest logit, the lowest id among equals.
        temperature > 0: tokens weigh exp(logit / temperature), then, as transformers and vLLM define them,
            top_k   keeps the k largest, and every token equal to the k-th; 0 keeps all;
            top_p   keeps, in descending order (lower ids first among equals), each token before which less
            than top_p of
                    the remaining weight has passed, and always the first; 1 or more keeps all;
            min_p   keeps tokens of at least min_p times the largest weight; 0 keeps all.
        The draw is the inverse of the distribution function in vocabulary order: the lowest kept id whose
        running sum of weights exceeds uniform * total. A row's result depends on its own numbers only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SamplingBatch:
    """One number per row.

    Attributes:
        temperature, top_p, min_p: float32 [S].
        top_k: int64 [S].
        uniforms: float64 or float32 [S], in [0, 1).

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    uniforms: Tensor

    def __post_init__(self) -> None:
        rows = self.temperature.shape
        for name, dtypes in _FIELD_DTYPES.items():
            value: Tensor = getattr(self, name)
            if value.dim() != 1 or value.shape != rows or value.dtype not in dtypes:
                raise ValueError(
                    f"SamplingBatch: {name} must be {dtypes[0]} {list(rows)},"
                    f" got {value.dtype} {list(value.shape)}"
                )


_FIELD_DTYPES = {
    "temperature": (torch.float32,),
    "top_k": (torch.int64,),
    "top_p": (torch.float32,),
    "min_p": (torch.float32,),
    "uniforms": (torch.float64, torch.float32),
}


def check_sample(logits: Tensor, params: SamplingBatch) -> None:
    """Raise a ValueError that names the numbers when the arguments do not fit together."""
    if (
        logits.dim() != 2
        or logits.dtype != torch.float32
        or logits.shape[1] == 0
        or not logits.is_contiguous()
    ):
        raise ValueError(
            f"sample: logits must be contiguous float32 [S, V > 0], got {logits.dtype} {list(logits.shape)}"
        )
    if params.temperature.shape != logits.shape[:1]:
        raise ValueError(
            f"sample: {logits.shape[0]} rows of logits, parameters for {list(params.temperature.shape)}"
        )
