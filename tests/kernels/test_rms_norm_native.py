"""The native RMS norm: error, what a row's bits depend on, odd numbers, and what it leaves to torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcli_kernels.rms_norm import reference
from tests.kernels.bounds import assert_close

pytest.importorskip("llvmlite")

from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import words
from llmcli_kernels.native.program import Program
from llmcli_kernels.native.rowwise import rowwise
from llmcli_kernels.rms_norm.native import NativeAddRmsNorm, NativeRmsNorm, stage

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
MOST_THREADS = 4
BF16 = torch.bfloat16


def no_fallback(*args: object) -> Any:
    raise AssertionError("the native kernel should have done this")


def rms_norm(host: Host, x: Tensor, weight: Tensor) -> Tensor:
    return NativeRmsNorm(host, no_fallback)(x, weight, 1e-5)


def add_rms_norm(host: Host, x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The norm, and what the residual became."""
    residual = residual.clone()
    return NativeAddRmsNorm(host, no_fallback)(x, residual, weight, 1e-5), residual


def make(rows: int, width: int, dtype: torch.dtype = BF16) -> tuple[Tensor, Tensor, Tensor]:
    return tuple((torch.randn(n, width) * 3).to(dtype).squeeze(0) for n in (rows, rows, 1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [16, 48, 64, 2048, 2064])
@pytest.mark.parametrize("rows", [2, 63, 70])
def test_norms_equal_the_reference(host: Host, rows: int, width: int, dtype: torch.dtype):
    x, residual, weight = make(rows, width, dtype)
    assert_close("rms_norm_native", rms_norm(host, x, weight), reference.rms_norm(x, weight, 1e-5))
    y, total = add_rms_norm(host, x, residual, weight)
    assert_close("rms_norm_native", y, reference.add_rms_norm(x, residual, weight, 1e-5))
    assert torch.equal(total, residual)


@pytest.mark.parametrize("width", [64, 80])
def test_rows_of_x_may_be_part_of_wider_ones(host: Host, width: int):
    x, residual, weight = make(5, width)
    wide = torch.full((5, width + 24), torch.nan, dtype=BF16)
    wide[:, 8:-16] = x
    assert torch.equal(rms_norm(host, wide[:, 8:-16], weight), rms_norm(host, x, weight))
    expected = add_rms_norm(host, x, residual, weight)
    assert all(map(torch.equal, add_rms_norm(host, wide[:, 8:-16], residual, weight), expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_is_the_same_bits_in_any_batch_with_any_threads_on_both_machines(
    host: Host, code_folder: Path, dtype: torch.dtype
):
    x, residual, weight = make(131, 1040, dtype)
    threads, expected = torch.get_num_threads(), add_rms_norm(Host(code_folder), x, residual, weight)
    try:
        for number in range(1, MOST_THREADS + 1):
            torch.set_num_threads(number)
            for rows in (slice(0, 131), slice(7, 8), slice(50, 130)):
                result = add_rms_norm(host, x[rows], residual[rows], weight)
                assert all(
                    torch.equal(part, whole[rows]) for part, whole in zip(result, expected, strict=True)
                )
    finally:
        torch.set_num_threads(threads)


def test_the_sum_of_the_residual_is_what_is_normed(host: Host):
    x, residual, weight = make(9, 256)
    y, total = add_rms_norm(host, x, residual, weight)
    assert torch.equal(y, rms_norm(host, total, weight))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_finite_looks_as_in_the_reference_and_spoils_no_other(host: Host, bad: float):
    x, _, weight = make(6, 96)
    clean = rms_norm(host, x, weight)
    x[4, 50] = bad
    y, expected = rms_norm(host, x, weight), reference.rms_norm(x, weight, 1e-5)
    assert torch.equal(y[4].nan_to_num(7.0), expected[4].nan_to_num(7.0))
    assert torch.equal(y[[0, 1, 2, 3, 5]], clean[[0, 1, 2, 3, 5]])


def test_large_values_do_not_overflow_in_half_precision(host: Host):
    x = torch.full((1, 64), 6e4, dtype=torch.float16)
    assert (rms_norm(host, x, torch.ones(64).half()) == 1).all()


def test_a_row_of_zeros_is_zeros(host: Host):
    assert (rms_norm(host, torch.zeros(1, 64), torch.ones(64)) == 0).all()


def test_no_rows_are_no_work(host: Host):
    assert rms_norm(host, torch.empty(0, 64), torch.ones(64)).shape == (0, 64)


@pytest.mark.parametrize("x", [torch.ones(2, 3, 64), torch.ones(2, 24), torch.ones(2, 64).double()])
def test_what_it_does_not_cover_goes_to_the_fallback(host: Host, x: Tensor):
    taken: list[Callable] = []
    weight = torch.ones(x.shape[-1], dtype=x.dtype)
    NativeRmsNorm(host, lambda *args: taken.append(args))(x, weight, 1e-5)
    if x.dim() == 2:
        NativeAddRmsNorm(host, lambda *args: taken.append(args))(x, x.clone(), weight, 1e-5)
    assert len(taken) == (2 if x.dim() == 2 else 1)


def test_a_program_follows_the_number_of_rows(host: Host):
    x, _, weight = make(80, 64)
    expected, rows, out = rms_norm(host, x, weight), words(0), torch.empty(80, 64, dtype=BF16)
    norm = stage(
        host,
        BF16,
        x=x.data_ptr(),
        x_stride=128,
        residual=None,
        weight=weight.data_ptr(),
        out=out.data_ptr(),
        width=64,
        eps=1e-5,
    )
    program = Program(host, [rowwise(host, rows.data_ptr(), norm)])
    for number in (3, 80, 1):
        rows[0] = number
        out.fill_(9.0)
        program.run()
        assert torch.equal(out[:number], expected[:number])
        assert (out[number:] == 9.0).all()
