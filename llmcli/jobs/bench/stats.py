"""The statistics of benchmarks: percentiles, means and spreads, and whether two sets of runs differ.

Plain numbers in and out, standard library only. Knows nothing of engines, files or tables; the other
`jobs/bench*.py` call it.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
_FRACTION_STEPS = 1000  # the continued fraction needs a few dozen
_TINY = 1e-300


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` percent (0..100) of the values lie, interpolated linearly.

    That is type 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages" (1996), and numpy's default.

    Raises:
        ValueError: there are no values, or the share is out of range.
    """
    if not values or not 0 <= share <= 100:
        raise ValueError(f"no percentile {share} of {len(values)} values")
    ordered = sorted(values)
    place = (len(ordered) - 1) * share / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def stdev(values: Sequence[float]) -> float:
    """The sample's standard deviation (n - 1); 0 of fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """How two sets of runs compare.

    Attributes:
        value: after / before.
        low, high: its 95 % confidence interval; None where a set has fewer than two runs.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def is_noise(self) -> bool:
        """Whether the interval holds 1: the runs do not tell the two apart."""
        return self.low is not None and self.high is not None and self.low <= 1 <= self.high

    def inverse(self) -> "Ratio":
        """before / after."""
        if self.low is None or self.high is None:
            return Ratio(1 / self.value)
        return Ratio(1 / self.value, 1 / self.high, 1 / self.low)


def ratio_of(before: Sequence[float], after: Sequence[float]) -> Ratio:
    """after / before with a 95 % confidence interval: Welch's t interval of the difference of the logarithms.

    Benchmarks have 3 to 30 runs with spreads that differ. Welch's interval (Welch, "The generalization of
    'Student's' problem when several different population variances are involved", 1947) allows for both, where a
    bootstrap of five runs is far too narrow: resampling can not show more spread than the five have. Logarithms
    turn the difference into a ratio, and make the answer the same for a rate and for its time.

    Raises:
        ValueError: a set is empty, or holds a value that is not above 0.
    """
    if not before or not after or min(*before, *after) <= 0:
        raise ValueError("a ratio needs values above 0 on both sides")
    logs_before, logs_after = [math.log(x) for x in before], [math.log(x) for x in after]
    difference = statistics.fmean(logs_after) - statistics.fmean(logs_before)
    if len(before) < 2 or len(after) < 2:
        return Ratio(math.exp(difference))
    errors = [statistics.variance(logs) / len(logs) for logs in (logs_before, logs_after)]
    error = sum(errors)
    if error == 0:
        return Ratio(math.exp(difference), math.exp(difference), math.exp(difference))
    # Welch and Satterthwaite: the degrees of freedom of a sum of two variances
    freedom = error**2 / (errors[0] ** 2 / (len(before) - 1) + errors[1] ** 2 / (len(after) - 1))
    margin = student_t_quantile((1 + CONFIDENCE) / 2, freedom) * math.sqrt(error)
    return Ratio(math.exp(difference), math.exp(difference - margin), math.exp(difference + margin))


def geometric_mean(values: Sequence[float]) -> float | None:
    """What a ratio of `ratio_of` is a ratio of; None where a value is not above 0, or there is none."""
    return statistics.geometric_mean(values) if values and min(values) > 0 else None


def student_t_quantile(share: float, freedom: float) -> float:
    """The t below which `share` (0.5..1, 1 left out) of Student's distribution lies.

    Args:
        freedom: degrees of freedom, above 0; need not be whole.
    """
    low, high = 0.0, 1.0
    while student_t_cdf(high, freedom) < share:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if student_t_cdf(middle, freedom) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def student_t_cdf(t: float, freedom: float) -> float:
    """The share of Student's distribution below t, for t of at least 0."""
    return 1 - _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b): NIST Digital Library of Mathematical Functions, 8.17."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly: 8.17.4
        return 1 - _incomplete_beta(b, a, 1 - x)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(scale) / a / _beta_fraction(a, b, x)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)) of 8.17.22, by Lentz's method ("Generating Bessel functions ...", 1976)."""
    value = numerator = 1.0
    denominator = 0.0
    for step in range(1, _FRACTION_STEPS):
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / ((1 + d * denominator) or _TINY)
        numerator = (1 + d / numerator) or _TINY
        factor = numerator * denominator
        value *= factor
        if abs(factor - 1) < 1e-15:
            break
    return value
