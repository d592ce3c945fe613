"""What a serving benchmark reports: TTFT, TPOT, ITL, E2EL, throughput and goodput, as vLLM defines them.

The definitions are those of `calculate_metrics` in vLLM's `vllm/benchmarks/serve.py`, and of the times that
`vllm/benchmarks/lib/endpoint_request_func.py` takes; the names of the values are those of its result files. Of one
request that succeeded, with clock readings at the client:

    TTFT   time to first token: from just before the request is sent to the first event that has a choice.
    ITL    inter-token latencies: between one event with a choice and the next. Servers may put several tokens
           into one event, so there can be fewer of them than tokens.
    E2EL   end-to-end latency: from just before sending to the last event with a choice.
    TPOT   time per output token: (E2EL - TTFT) / (output tokens - 1); requests with one token have none.

Waiting for a free place under --max-concurrency comes before "just before the request is sent", and is in none of
them. Knows no HTTP and no clock: plain numbers in and out.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmcli.errors import UsageError, quote
from llmcli.jobs.bench.result import Row
from llmcli.jobs.bench.stats import percentile

METRICS = ("ttft", "tpot", "itl", "e2el")
GOODPUT_METRICS = ("ttft", "tpot", "e2el")
TITLES = {
    "ttft": "Time to First Token",
    "tpot": "Time per Output Token (excl. 1st token)",
    "itl": "Inter-token Latency",
    "e2el": "End-to-end Latency",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one request went; seconds.

    Attributes:
        started_at: the clock just before it was sent.
        ttft_s, latency_s, itl_s: see the module.
        num_prompt, num_output: tokens, as the server counted them or, without a count of its, as guessed.
        counted: whether the server counted.
        error: why it failed; None for one that succeeded.
    """

    started_at: float
    num_prompt: int = 0
    num_output: int = 0
    counted: bool = True
    ttft_s: float = 0.0
    latency_s: float = 0.0
    itl_s: tuple[float, ...] = ()
    error: str | None = None

    @property
    def tpot_s(self) -> float | None:
        """None for a request with fewer than two tokens."""
        return (self.latency_s - self.ttft_s) / (self.num_output - 1) if self.num_output > 1 else None


@dataclass(frozen=True, slots=True)
class Selection:
    """What to report.

    Attributes:
        metrics: of METRICS, those with mean, median and percentiles.
        percentiles: in percent, 0..100.
        goodput: limits in milliseconds, for metrics of GOODPUT_METRICS; a request is good that keeps all.
    """

    metrics: tuple[str, ...] = METRICS
    percentiles: tuple[float, ...] = (99.0,)
    goodput: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                raise UsageError(f"--percentile-metrics must be of {', '.join(METRICS)}, got {quote(name)}")
        for share in self.percentiles:
            if not 0 <= share <= 100:
                raise UsageError(f"--metric-percentiles must be in 0..100, got {share:g}")
        for name, limit in (self.goodput or {}).items():
            if name not in GOODPUT_METRICS:
                raise UsageError(f"--goodput knows {', '.join(GOODPUT_METRICS)}, got {quote(name)}")
            if not limit > 0:
                raise UsageError(f"--goodput {name} must be above 0 milliseconds, got {limit:g}")


def seconds_of(outcomes: Sequence[Outcome], metric: str) -> list[float]:
    """All values of one metric, over the requests that succeeded."""
    good = [outcome for outcome in outcomes if outcome.error is None]
    if metric == "itl":
        return [gap for outcome in good for gap in outcome.itl_s]
    if metric == "tpot":
        return [outcome.tpot_s for outcome in good if outcome.tpot_s is not None]
    return [outcome.ttft_s if metric == "ttft" else outcome.latency_s for outcome in good]


def metrics_of(outcomes: Sequence[Outcome], duration_s: float, selection: Selection) -> dict[str, Any]:
    """All figures, under the names that vLLM's result files have; times in milliseconds.

    Args:
        duration_s: from the first request's start to the last one's end.
    """
    good = [outcome for outcome in outcomes if outcome.error is None]
    num_input = sum(outcome.num_prompt for outcome in good)
    num_output = sum(outcome.num_output for outcome in good)
    found: dict[str, Any] = {
        "duration": duration_s,
        "completed": len(good),
        "failed": len(outcomes) - len(good),
        "total_input_tokens": num_input,
        "total_output_tokens": num_output,
        "request_throughput": len(good) / duration_s,
        "output_throughput": num_output / duration_s,
        "total_token_throughput": (num_input + num_output) / duration_s,
        "max_concurrent_requests": peak_concurrency(good),
        "max_output_tokens_per_s": peak_output_rate(good),
    }
    if selection.goodput:
        num_good = sum(keeps(outcome, selection.goodput) for outcome in good)
        found["request_goodput"] = num_good / duration_s
    for name in selection.metrics:
        values = [second * 1000 for second in seconds_of(outcomes, name)]
        found |= _described(name, values, selection.percentiles)
    return found


def _described(name: str, values: list[float], shares: Sequence[float]) -> dict[str, float | None]:
    """Mean, median, standard deviation (of the population, as numpy's) and percentiles; None without values."""
    found: dict[str, float | None] = {
        f"mean_{name}_ms": statistics.fmean(values) if values else None,
        f"median_{name}_ms": statistics.median(values) if values else None,
        f"std_{name}_ms": statistics.pstdev(values) if values else None,
    }
    for share in shares:
        found[f"p{share:g}_{name}_ms"] = percentile(values, share) if values else None
    return found


def keeps(outcome: Outcome, limits: Mapping[str, float]) -> bool:
    """Whether a request keeps every limit (milliseconds); one without a TPOT keeps that for TPOT."""
    seconds = {"ttft": outcome.ttft_s, "tpot": outcome.tpot_s or 0.0, "e2el": outcome.latency_s}
    return all(seconds[name] <= limit / 1000 for name, limit in limits.items())


def peak_concurrency(good: Sequence[Outcome]) -> int:
    """The most requests that were under way at a moment; one that ends as another starts is not under way."""
    starts = [(outcome.started_at, 1) for outcome in good]
    ends = [(outcome.started_at + outcome.latency_s, -1) for outcome in good]
    most = now = 0
    for _, change in sorted(starts + ends):
        now += change
        most = max(most, now)
    return most


def peak_output_rate(good: Sequence[Outcome]) -> int:
    """The most events with output in one second, seconds counted from the first request's start."""
    if not good:
        return 0
    first = min(outcome.started_at for outcome in good)
    seconds: dict[int, int] = {}
    for outcome in good:
        for moment in _moments(outcome):
            seconds[int(moment - first)] = seconds.get(int(moment - first), 0) + 1
    return max(seconds.values())


def _moments(outcome: Outcome) -> Iterator[float]:
    moment = outcome.started_at + outcome.ttft_s
    yield moment
    for gap in outcome.itl_s:
        moment += gap
        yield moment


def rows_of(name: str, outcomes: Sequence[Outcome], duration_s: float, selection: Selection) -> list[Row]:
    """Rows for comparing: throughputs of the whole, and each request's times."""
    found = metrics_of(outcomes, duration_s, selection)
    rows = [
        Row(test=f"{name}: {title}", unit=unit, samples=(found[key],))
        for title, unit, key in (
            ("requests", "req/s", "request_throughput"),
            ("output", "tok/s", "output_throughput"),
            ("total", "tok/s", "total_token_throughput"),
        )
        if found[key] > 0
    ]
    for metric in selection.metrics:
        values = seconds_of(outcomes, metric)
        if (
            metric == "itl"
        ):  # as many as tokens, and those of one request hang together: their mean stands for it
            gaps = [outcome.itl_s for outcome in outcomes if outcome.error is None and outcome.itl_s]
            values = [statistics.fmean(each) for each in gaps]
        if values:
            rows.append(Row(test=f"{name}: {metric.upper()}", unit="s", samples=tuple(values)))
    return rows
