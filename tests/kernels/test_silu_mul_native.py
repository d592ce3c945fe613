"""The native gated activation: error, what a row's bits depend on, odd numbers, and what it leaves to torch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcli_kernels.silu_mul import reference
from tests.kernels.bounds import assert_close

pytest.importorskip("llvmlite")

from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import words
from llmcli_kernels.native.program import Program
from llmcli_kernels.native.rowwise import rowwise
from llmcli_kernels.silu_mul.native import NativeSiluMul, stage

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
MOST_THREADS = 4


def no_fallback(*args: object) -> Any:
    raise AssertionError("the native kernel should have done this")


def silu_mul(host: Host, x: Tensor) -> Tensor:
    return NativeSiluMul(host, no_fallback)(x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 16), (3, 1008), (2, 1024), (5, 1040), (17, 5632)])
def test_product_equals_float64(host: Host, shape: tuple[int, int], dtype: torch.dtype):
    x = (torch.randn(shape[0], 2 * shape[1]) * 4).to(dtype)
    gate, up = x.double().chunk(2, dim=1)
    assert_close("silu_mul", silu_mul(host, x), (gate / (1 + torch.exp(-gate)) * up).to(dtype))


def test_rows_may_be_part_of_wider_ones(host: Host):
    x = torch.full((4, 100), torch.nan)
    x[:, 3:67] = torch.randn(4, 64)
    assert torch.equal(silu_mul(host, x[:, 3:67]), silu_mul(host, x[:, 3:67].contiguous()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_is_the_same_bits_in_any_batch_with_any_threads_on_both_machines(
    host: Host, code_folder: Path, dtype: torch.dtype
):
    x = (torch.randn(19, 2 * 2064) * 4).to(dtype)
    threads, expected = torch.get_num_threads(), silu_mul(Host(code_folder), x)
    try:
        for number in range(1, MOST_THREADS + 1):
            torch.set_num_threads(number)
            for rows in (slice(0, 19), slice(7, 8), slice(3, 18)):
                assert torch.equal(silu_mul(host, x[rows]), expected[rows])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_are_not_finite_or_extreme_give_what_the_reference_gives(host: Host, dtype: torch.dtype):
    numbers = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 3e4, -3e4, -120.0, 1.0, 6e-8])
    gate, up = (part.flatten() for part in torch.meshgrid(numbers, numbers, indexing="ij"))
    x = torch.zeros(2, 112).to(dtype)
    x[0, :100], x[1, :100] = gate, up
    x = x.view(1, 224)
    expected = reference.silu_mul(x)
    y = silu_mul(host, x)
    assert torch.equal(y.isnan(), expected.isnan())
    assert torch.allclose(y, expected, rtol=1e-3, atol=1e-30, equal_nan=True)


def test_extreme_gates_are_finite(host: Host):
    y = silu_mul(host, torch.tensor([[-1e4, 1e4, -1e30, 90.0] * 4 + [2.0, 3.0, 1.0, 1.0] * 4]))
    assert y.tolist() == [[0.0, 3e4, 0.0, 90.0] * 4]


def test_no_rows_are_no_work(host: Host):
    assert silu_mul(host, torch.empty(0, 64)).shape == (0, 32)


@pytest.mark.parametrize("x", [torch.ones(1, 34), torch.ones(1, 64).double()])
def test_what_it_does_not_cover_goes_to_the_fallback(host: Host, x: Tensor):
    assert NativeSiluMul(host, lambda x: x[:, :1])(x).shape == (1, 1)


def test_a_program_follows_the_number_of_rows(host: Host):
    x, rows, out = torch.randn(6, 4096), words(0), torch.empty(6, 2048)
    expected = silu_mul(host, x)
    activation = stage(
        host,
        torch.float32,
        x=x.data_ptr(),
        x_stride=4 * 4096,
        out=out.data_ptr(),
        width=2048,
    )
    program = Program(host, [rowwise(host, rows.data_ptr(), activation)])
    for number in (2, 6, 1):
        rows[0] = number
        out.fill_(9.0)
        program.run()
        assert torch.equal(out[:number], expected[:number])
        assert (out[number:] == 9.0).all()
