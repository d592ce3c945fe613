"""What only Triton's gated activation has: summands as input, sums of runs beside the output, pieces of a row."""

import pytest
import torch

from llmcli_kernels import KernelSet
from llmcli_kernels.activations import Partials
from tests.kernels.bounds import assert_close
from tests.kernels.poison import poison_memory

pytest.importorskip("triton")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("split", [1, 3, 5])
@pytest.mark.parametrize(("rows", "width"), [(1, 2), (3, 257), (2, 1056), (33, 96)])
def test_summands_are_added_in_order_and_rounded_once_before_the_activation(
    triton: KernelSet, reference: KernelSet, split: int, rows: int, width: int, dtype: torch.dtype
):
    partials = Partials(torch.randn(split, rows, 2 * width) * 2, dtype)
    total = partials.parts[0]
    for part in partials.parts[1:]:
        total = total + part
    y = triton.silu_mul(partials)
    assert_close("silu_mul", y, reference.silu_mul(total.to(dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_gives_the_same_bits_as_its_summands(triton: KernelSet, dtype: torch.dtype):
    x = (torch.randn(4, 320) * 3).to(dtype)
    halves = Partials(torch.stack((x.float() / 2, x.float() / 2)), dtype)
    assert torch.equal(triton.silu_mul(x), triton.silu_mul(halves))


def test_rows_may_lie_apart(triton: KernelSet, reference: KernelSet):
    x = torch.randn(5, 300)[:, 17:217]
    y = triton.silu_mul(x)
    assert y.is_contiguous()
    assert_close("silu_mul", y, reference.silu_mul(x))


def test_what_output_memory_held_before_does_not_matter(triton: KernelSet, reference: KernelSet, monkeypatch):
    poison_memory(monkeypatch)
    x = torch.randn(3, 2 * 288)
    y = triton.silu_mul(x)
    assert_close("silu_mul", y, reference.silu_mul(x))


def test_no_rows_give_an_empty_result(triton: KernelSet):
    assert triton.silu_mul(torch.empty(0, 128)).shape == (0, 64)
