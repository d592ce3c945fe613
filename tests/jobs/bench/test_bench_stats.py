"""Statistics of benchmarks against numpy, published tables and numerical integration."""

import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.jobs.bench.stats import (
    Ratio,
    geometric_mean,
    percentile,
    ratio_of,
    stdev,
    student_t_cdf,
    student_t_quantile,
)

FINITE = st.floats(-1e6, 1e6)


@given(st.lists(FINITE, min_size=1, max_size=50), st.floats(0, 100))
def test_percentiles_are_those_of_numpy(values: list[float], share: float) -> None:
    assert percentile(values, share) == pytest.approx(float(np.percentile(values, share)), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(("values", "share"), [([], 50), ([1.0], 101), ([1.0], -1)])
def test_a_percentile_of_nothing_or_beyond_all_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile(values, share)


def test_one_value_has_no_spread() -> None:
    assert (stdev([5.0]), stdev([1.0, 3.0])) == (0.0, math.sqrt(2))


# Two-sided 95 % and 99 % points of the table in "Student" (W. S. Gosset) and every textbook since.
TABLE = [
    (0.975, 1, 12.7062),
    (0.975, 2, 4.3027),
    (0.975, 4, 2.7764),
    (0.975, 10, 2.2281),
    (0.975, 30, 2.0423),
    (0.995, 5, 4.0321),
    (0.95, 8, 1.8595),
]


@pytest.mark.parametrize(("share", "freedom", "t"), TABLE)
def test_quantiles_of_students_distribution_are_those_of_the_tables(
    share: float, freedom: float, t: float
) -> None:
    assert student_t_quantile(share, freedom) == pytest.approx(t, abs=5e-5)


def test_with_many_degrees_of_freedom_it_is_the_normal_distribution() -> None:
    normal = statistics.NormalDist().inv_cdf(0.975)
    assert student_t_quantile(0.975, 1e7) == pytest.approx(normal, abs=1e-5)


def integrate(f: Callable[[float], float], low: float, high: float, steps: int = 2000) -> float:
    """Simpson's rule."""
    width = (high - low) / steps
    inner = sum((4 if i % 2 else 2) * f(low + i * width) for i in range(1, steps))
    return (f(low) + inner + f(high)) * width / 3


@pytest.mark.parametrize("freedom", [1.5, 2.7, 6.25, 40.5])
@pytest.mark.parametrize("t", [0.1, 1.0, 3.0])
def test_the_distribution_is_the_integral_of_its_density(freedom: float, t: float) -> None:
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
    density = integrate(lambda x: scale * (1 + x * x / freedom) ** (-(freedom + 1) / 2), 0, t)
    assert student_t_cdf(t, freedom) == pytest.approx(0.5 + density, abs=1e-9)


def test_the_interval_of_a_ratio_by_hand() -> None:
    # logarithms -d, 0, d and log 2 - d, log 2, log 2 + d: variance d² each, standard error d sqrt(2/3), freedom 4
    d = 0.01
    before = [math.exp(x) for x in (-d, 0, d)]
    ratio = ratio_of(before, [2 * x for x in before])
    margin = 2.776445 * d * math.sqrt(2 / 3)
    assert ratio.value == pytest.approx(2)
    assert ratio.low == pytest.approx(2 * math.exp(-margin), rel=1e-6)
    assert ratio.high == pytest.approx(2 * math.exp(margin), rel=1e-6)
    assert not ratio.is_noise


def test_runs_that_overlap_are_noise() -> None:
    assert ratio_of([100, 102, 98, 101], [101, 99, 103, 100]).is_noise


def test_equal_runs_without_any_spread_are_noise_and_different_ones_are_not() -> None:
    assert ratio_of([5, 5], [5, 5]).is_noise
    assert not ratio_of([5, 5], [6, 6]).is_noise


def test_one_run_has_a_ratio_and_no_interval() -> None:
    ratio = ratio_of([2.0], [3.0, 3.0])
    assert (ratio.value, ratio.low, ratio.high) == (pytest.approx(1.5), None, None)
    assert not ratio.is_noise


@given(
    st.lists(st.floats(0.1, 10), min_size=2, max_size=8), st.lists(st.floats(0.1, 10), min_size=2, max_size=8)
)
def test_times_compare_as_their_rates_do(before: list[float], after: list[float]) -> None:
    rates = ratio_of([1 / x for x in before], [1 / x for x in after])
    times = ratio_of(before, after).inverse()
    assert rates.value == pytest.approx(times.value)
    assert (rates.low, rates.high) == (pytest.approx(times.low), pytest.approx(times.high))


def test_the_interval_holds_the_truth_as_often_as_it_promises() -> None:
    source = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        before = np.exp(source.normal(0, 0.02, 5))
        after = 1.1 * np.exp(source.normal(0, 0.05, 5))
        ratio = ratio_of(list(before), list(after))
        held += ratio.low <= 1.1 <= ratio.high
    assert 0.93 <= held / 1000 <= 0.97


@pytest.mark.parametrize(("before", "after"), [([], [1.0]), ([1.0], []), ([1.0, 0.0], [1.0])])
def test_a_ratio_of_nothing_is_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        ratio_of(before, after)


def test_a_ratio_is_one_of_geometric_means() -> None:
    before, after = [1.0, 4.0], [3.0, 12.0]
    assert (geometric_mean(before), geometric_mean(after)) == (pytest.approx(2), pytest.approx(6))
    assert ratio_of(before, after).value == pytest.approx(3)
    assert geometric_mean([]) is geometric_mean([0.0, 1.0]) is None


def test_a_ratio_turns_around() -> None:
    assert Ratio(2.0, 1.6, 2.5).inverse() == Ratio(0.5, 0.4, 0.625)
    assert Ratio(4.0).inverse() == Ratio(0.25)
