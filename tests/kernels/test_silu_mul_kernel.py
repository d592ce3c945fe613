"""Gated activation: by hand, and against float64."""

import math

import pytest
import torch

from llmcli_kernels import KernelSet
from tests.kernels.bounds import assert_close


def test_the_gate_comes_first(kernels: KernelSet):
    y = kernels.silu_mul(torch.tensor([[0.0, 1.0, 5.0, 2.0]]))
    assert torch.allclose(y, torch.tensor([[0.0, 2.0 / (1 + math.exp(-1))]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 2), (3, 34), (17, 5632 * 2)])
def test_product_equals_float64(kernels: KernelSet, shape: tuple[int, int], dtype: torch.dtype):
    x = (torch.randn(shape) * 4).to(dtype)
    gate, up = x.double().chunk(2, dim=1)
    assert_close("silu_mul", kernels.silu_mul(x), (gate / (1 + torch.exp(-gate)) * up).to(dtype))


def test_extreme_gates_are_finite(kernels: KernelSet):
    y = kernels.silu_mul(torch.tensor([[-1e4, 1e4, 2.0, 3.0]]))
    assert y.tolist() == [[0.0, 3e4]]


def test_unfit_arguments_are_named(kernels: KernelSet):
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        kernels.silu_mul(torch.ones(2, 3))
    with pytest.raises(ValueError, match="int64"):
        kernels.silu_mul(torch.ones(2, 4, dtype=torch.int64))
