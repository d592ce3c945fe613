"""What only Triton's RMS norm has: summands as input, sums of runs beside the output, rows padded to whole runs."""

import pytest
import torch
from torch import Tensor

from llmcli_kernels import KernelSet
from llmcli_kernels.activations import Partials
from tests.kernels.bounds import assert_close
from tests.kernels.poison import poison_memory

pytest.importorskip("triton")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def inputs(rows: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A residual stream and a weight."""
    return (torch.randn(rows, width) * 3).to(dtype), torch.randn(width).to(dtype)


def added_in_order(partials: Partials) -> Tensor:
    total = partials.parts[0]
    for part in partials.parts[1:]:
        total = total + part
    return total.to(partials.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("split", [1, 3, 5])
@pytest.mark.parametrize(("rows", "width"), [(1, 8), (3, 257), (2, 2048), (33, 96)])
def test_summands_are_added_in_order_and_rounded_once_before_the_residual(
    triton: KernelSet, reference: KernelSet, split: int, rows: int, width: int, dtype: torch.dtype
):
    residual, weight = inputs(rows, width, dtype)
    partials = Partials(torch.randn(split, rows, width), dtype)
    expected_residual = residual.clone()
    expected = reference.add_rms_norm(added_in_order(partials), expected_residual, weight, 1e-5)
    y = triton.add_rms_norm(partials, residual, weight, 1e-5)
    assert torch.equal(residual, expected_residual)
    assert_close("rms_norm_triton", y, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_gives_the_same_bits_as_its_summands(triton: KernelSet, dtype: torch.dtype):
    residual, weight = inputs(4, 160, dtype)
    x = torch.randn(4, 160).to(dtype)
    halves = Partials(torch.stack((x.float() / 2, x.float() / 2)), dtype)
    other = residual.clone()
    whole, split = (
        triton.add_rms_norm(value, stream, weight, 1e-6) for value, stream in ((x, residual), (halves, other))
    )
    assert torch.equal(residual, other)
    assert torch.equal(whole, split)


def test_rows_may_lie_apart(triton: KernelSet, reference: KernelSet):
    wide, weight = torch.randn(5, 300), torch.randn(100)
    x, residual = wide[:, :100], wide[:, 150:250]
    expected_residual = residual.clone()
    expected = reference.add_rms_norm(x, expected_residual, weight, 1e-5)
    y = triton.add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(residual, expected_residual)
    assert y.is_contiguous()
    assert_close("rms_norm_triton", y, expected)


def test_the_widest_row(triton: KernelSet, reference: KernelSet):
    x, weight = inputs(2, 16384, torch.float16)
    y = triton.rms_norm(x, weight, 1e-6)
    assert_close("rms_norm_triton", y, reference.rms_norm(x, weight, 1e-6))


def test_what_output_memory_held_before_does_not_matter(triton: KernelSet, reference: KernelSet, monkeypatch):
    poison_memory(monkeypatch)
    residual, weight = inputs(3, 288, torch.float16)
    y = triton.rms_norm(residual, weight, 1e-5)
    assert_close("rms_norm_triton", y, reference.rms_norm(residual, weight, 1e-5))


def test_no_rows_give_an_empty_result(triton: KernelSet):
    y = triton.add_rms_norm(torch.empty(0, 64), torch.empty(0, 64), torch.ones(64), 1e-5)
    assert y.shape == (0, 64)


def test_a_number_that_is_not_one_stays_in_its_row(triton: KernelSet):
    x = torch.ones(2, 64)
    x[0, 5] = torch.nan
    y = triton.rms_norm(x, torch.ones(64), 0.0)
    assert y[0].isnan().all()
    assert torch.equal(y[1], torch.ones(64))
