"""Plain PyTorch int4 linear: the truth that faster kernels are compared with."""

from dataclasses import replace

import torch
from torch import Tensor

from llmcli_kernels.int4_linear import Int4Matrix, Int4Weight


def pack_int4(weight: Int4Matrix, dtype: torch.dtype) -> Int4Weight:
    plain = weight.plain()
    return replace(plain, q=plain.q.clone(), scales=plain.scales.clone())  # they may lie in a mapped file


def int4_linear(x: Tensor, packed: Int4Weight, bias: Tensor | None) -> Tensor:
    y = x.to(torch.float32) @ packed.dequantize(torch.float32).T
    if bias is not None:
        y = y + bias.to(torch.float32)
    return y.to(x.dtype)
