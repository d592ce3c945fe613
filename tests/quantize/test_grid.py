"""Rounding to 4 bits: against numbers worked out by hand, and against the search done in the plainest way."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmcli.quantize.grid import SHRINKS, fit_to_grid, round_to_grid
from llmcli.quantize.shape import Grid


def random_matrix(seed: int, n: int = 8, k: int = 64) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def test_a_group_is_rounded_as_by_hand() -> None:
    row = torch.tensor([[-1.0, 2.0, 0.3, 0.0] * 8])
    rounded = round_to_grid(row, Grid(32))
    assert rounded.scales.tolist() == [[torch.tensor(0.2).half().item()]]  # (2 - -1) / 15
    assert rounded.zeros.tolist() == [[5]]
    assert rounded.q[0, :4].tolist() == [0, 15, 7, 5]  # 0.3 / 0.19995 = 1.5004, with the scale in float16
    assert rounded.dequantize()[0, :4].tolist() == pytest.approx([-1.0, 2.0, 0.4, 0.0], abs=1e-3)


def test_without_zero_points_a_group_is_rounded_around_8() -> None:
    rounded = round_to_grid(torch.tensor([[-0.7, 0.35, 0.1, 0.0] * 8]), Grid(32, zero_point=False))
    assert rounded.zeros.tolist() == [[8]]
    assert rounded.q[0, :4].tolist() == [1, 12, 9, 8]  # 0.35 / 0.09998 = 3.5009


@pytest.mark.parametrize("zero_point", [True, False])
def test_zeros_stay_zeros(zero_point: bool) -> None:
    assert not round_to_grid(torch.zeros(8, 64), Grid(32, zero_point)).dequantize().any()


@given(seed=st.integers(0, 1000), shift=st.floats(-2, 2), zero_point=st.booleans())
def test_no_weight_moves_by_more_than_half_a_step(seed: int, shift: float, zero_point: bool) -> None:
    weight = random_matrix(seed) + shift
    rounded = round_to_grid(weight, Grid(32, zero_point))
    steps = rounded.scales.float().repeat_interleave(32, 1)
    # half a step inside, a whole one at the ends: there the zero point's own rounding comes in, and the scale's
    assert ((rounded.dequantize() - weight).abs() <= steps * 1.02 + 1e-6).all()
    inside = (rounded.q > 0) & (rounded.q < 15)
    assert ((rounded.dequantize() - weight).abs()[inside] <= (steps * 0.502)[inside] + 1e-6).all()


@pytest.mark.parametrize("zero_point", [True, False])
def test_the_fitted_range_is_the_best_of_those_tried(zero_point: bool) -> None:
    weight, grid = random_matrix(1, 4, 96), Grid(32, zero_point)
    fitted = fit_to_grid(weight, grid).dequantize()
    for row, group in itertools.product(range(4), range(3)):
        cut = slice(32 * group, 32 * group + 32)
        tried = [round_to_grid(weight, grid, shrink).dequantize() for shrink in (1.0, *SHRINKS)]
        least = min(float((trial[row, cut] - weight[row, cut]).square().sum()) for trial in tried)
        found = float((fitted[row, cut] - weight[row, cut]).square().sum())
        assert found == pytest.approx(least, rel=1e-5)


def test_with_moments_the_error_of_the_products_is_what_counts() -> None:
    grid, inputs = Grid(32), random_matrix(2, 500, 64) * torch.logspace(-1, 1, 64)
    weight = random_matrix(3)
    moments = torch.stack(
        [inputs[:, cut].t() @ inputs[:, cut] / 500 for cut in (slice(0, 32), slice(32, 64))]
    )

    def error(rounded: torch.Tensor, cut: slice) -> torch.Tensor:
        return (inputs[:, cut] @ (rounded - weight)[:, cut].t()).square().sum(0)

    fitted = fit_to_grid(weight, grid, moments).dequantize()
    for cut in (slice(0, 32), slice(32, 64)):
        tried = [error(round_to_grid(weight, grid, shrink).dequantize(), cut) for shrink in (1.0, *SHRINKS)]
        torch.testing.assert_close(error(fitted, cut), torch.stack(tried).amin(0), rtol=1e-3, atol=0)


def test_a_large_matrix_is_rounded_in_parts_as_in_one() -> None:
    weight = random_matrix(4, 70_000, 64)  # more than is taken at a time
    whole = fit_to_grid(weight, Grid(32))
    end = fit_to_grid(weight[-8:], Grid(32))
    assert torch.equal(whole.q[-8:], end.q)
    assert torch.equal(whole.scales[-8:], end.scales)
