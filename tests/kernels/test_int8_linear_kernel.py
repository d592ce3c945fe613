"""8-bit layers: every set against the definition, and the native kernel's own promises."""

import pytest
import torch
from torch import Tensor

from llmcli_kernels import KernelSet
from llmcli_kernels.decoder import no_fusion
from llmcli_kernels.int8_linear import Int8Weight
from tests.kernels.bounds import assert_close

BF16 = torch.bfloat16
SHAPES = [
    (1, 64, 128),
    (3, 1, 128),
    (2, 65, 256),
    (1, 1000, 2048),
    (7, 320, 896),
    (200, 129, 384),
    (2, 72, 96),
]


def exact_product(x: Tensor, weight: Tensor) -> Tensor:
    """With the weights as the definition quantizes them."""
    quantized = Int8Weight.quantize(weight)
    return (x.double() @ (quantized.q.double() * quantized.scales.double().unsqueeze(1)).T).float()


@pytest.mark.parametrize(("rows", "n", "k"), SHAPES)
def test_products_in_bfloat16(kernels: KernelSet, rows: int, n: int, k: int):
    weight, x = torch.randn(n, k).to(BF16), torch.randn(rows, k).to(BF16)
    packed = kernels.pack_int8(weight)
    assert (n, k) == (packed.N, packed.K)
    product = kernels.int8_linear(x, packed)
    native = kernels.name == "cpu" and kernels.fuse_decoder is not no_fusion
    assert_close("int8_linear_int8" if native else "int8_linear_bf16", product, exact_product(x, weight))


@pytest.mark.parametrize(("rows", "n", "k"), SHAPES)
def test_products_in_float32(kernels: KernelSet, rows: int, n: int, k: int):
    weight, x = torch.randn(n, k), torch.randn(rows, k)
    product = kernels.int8_linear(x, kernels.pack_int8(weight))
    assert_close("int8_linear", product, exact_product(x, weight))


def test_a_weight_is_within_half_a_step_of_its_own():
    weight = torch.randn(100, 64)
    quantized = Int8Weight.quantize(weight)
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((quantized.dequantize(torch.float32) - weight).abs() <= 0.5001 * step).all()
    assert quantized.q.to(torch.int32).abs().max() == 127


def test_rows_of_zeros_stay_zero_and_rows_that_are_not_finite_are_nan():
    weight = torch.randn(4, 64)
    weight[1], weight[2, 3], weight[3, 5] = 0, torch.inf, torch.nan
    wide = Int8Weight.quantize(weight).dequantize(torch.float32)
    assert wide[0].isfinite().all()
    assert (wide[1] == 0).all()
    assert wide[2:].isnan().all()


def test_arguments_that_do_not_fit_are_told(kernels: KernelSet):
    packed = kernels.pack_int8(torch.randn(64, 128).to(BF16))
    with pytest.raises(ValueError, match=r"int8_linear: x must be floating \[M, 128\].*\[2, 64\]"):
        kernels.int8_linear(torch.randn(2, 64).to(BF16), packed)
    with pytest.raises(ValueError, match=r"pack_int8: weight must be floating \[N, K\]"):
        kernels.pack_int8(torch.randn(64))
