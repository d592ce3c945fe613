"""Plain PyTorch int8 linear: the truth that faster kernels are compared with."""

import torch
from torch import Tensor

from llmcli_kernels.int8_linear import Int8Weight


def pack_int8(weight: Tensor) -> Int8Weight:
    return Int8Weight.quantize(weight)


def int8_linear(x: Tensor, packed: Int8Weight) -> Tensor:
    return x.to(torch.float32) @ packed.dequantize(torch.float32).T
