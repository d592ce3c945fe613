"""RMS norm: by hand, against transformers' module, and cpu against reference."""

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from llmcli_kernels import KernelSet
from tests.kernels.bounds import assert_close

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def assert_normed(kernels: KernelSet, y: Tensor, expected: Tensor) -> None:
    operation = "rms_norm_triton" if kernels.name == "triton" else "rms_norm"
    assert_close(operation, y, expected)


def test_a_row_is_divided_by_its_root_mean_square(kernels: KernelSet):
    y = kernels.rms_norm(torch.tensor([[3.0, 4.0, 0.0, 5.0]]), torch.tensor([1.0, 1.0, 1.0, 2.0]), 0.0)
    assert torch.allclose(y, torch.tensor([[3.0, 4.0, 0.0, 10.0]]) / 12.5**0.5)


def test_eps_is_added_to_the_mean_of_squares(kernels: KernelSet):
    y = kernels.rms_norm(torch.tensor([[3.0, 3.0]]), torch.ones(2), 7.0)
    assert torch.allclose(y, torch.tensor([[0.75, 0.75]]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 8), (3, 257), (17, 2048), (5, 3, 64)])
def test_norm_equals_that_of_transformers(kernels: KernelSet, shape: tuple[int, ...], dtype: torch.dtype):
    module = LlamaRMSNorm(shape[-1], eps=1e-5).to(dtype)
    module.weight.data = torch.randn(shape[-1]).to(dtype)
    x = (torch.randn(shape) * 3).to(dtype)
    assert_normed(kernels, kernels.rms_norm(x, module.weight.data, 1e-5), module(x).detach())


@pytest.mark.parametrize("dtype", DTYPES)
def test_reference_equals_transformers_bit_for_bit(reference: KernelSet, dtype: torch.dtype):
    module = LlamaRMSNorm(96, eps=1e-6).to(dtype)
    module.weight.data = torch.randn(96).to(dtype)
    x = torch.randn(7, 96).to(dtype)
    assert torch.equal(reference.rms_norm(x, module.weight.data, 1e-6), module(x).detach())


def test_heads_of_a_merged_row_are_normed_through_a_view(kernels: KernelSet):
    row = torch.randn(3, 5 * 16)
    heads = row.view(3, 5, 16)[:, 1:3]
    y = kernels.rms_norm(heads, torch.ones(16), 1e-6)
    assert y.is_contiguous()
    assert_normed(kernels, y, kernels.rms_norm(heads.contiguous(), torch.ones(16), 1e-6))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_add_rms_norm_adds_in_place_then_norms(kernels: KernelSet, rows: int, dtype: torch.dtype):
    x, residual, weight = (torch.randn(n, 96).to(dtype) for n in (rows, rows, 1))
    total = x + residual
    y = kernels.add_rms_norm(x, residual, weight[0], 1e-5)
    assert torch.equal(residual, total)
    assert_normed(kernels, y, kernels.rms_norm(total, weight[0], 1e-5))


def test_large_values_do_not_overflow_in_half_precision(kernels: KernelSet):
    y = kernels.rms_norm(
        torch.full((1, 64), 6e4, dtype=torch.float16), torch.ones(64, dtype=torch.float16), 1e-6
    )
    assert torch.equal(y, torch.ones(1, 64, dtype=torch.float16))


def test_unfit_arguments_are_named(kernels: KernelSet):
    x = torch.ones(2, 4)
    with pytest.raises(ValueError, match=r"\[2, 4\].*\[3\]"):
        kernels.rms_norm(x, torch.ones(3), 1e-6)
    with pytest.raises(ValueError, match="bfloat16"):
        kernels.rms_norm(x, torch.ones(4, dtype=torch.bfloat16), 1e-6)
    with pytest.raises(ValueError, match="stride is 2"):
        kernels.rms_norm(torch.ones(4, 2).T, torch.ones(4), 1e-6)
    with pytest.raises(ValueError, match=r"\[1, 4\]"):
        kernels.add_rms_norm(torch.ones(1, 4), x, torch.ones(4), 1e-6)
