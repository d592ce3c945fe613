"""TTFT, TPOT, ITL, E2EL and throughput of requests whose figures are worked out by hand."""

import pytest

from llmcli.errors import UsageError
from llmcli.jobs.bench.serve_metrics import (
    Outcome,
    Selection,
    keeps,
    metrics_of,
    peak_concurrency,
    peak_output_rate,
    rows_of,
    seconds_of,
)

# Three tokens: the first after 0.1 s, then gaps of 0.2 and 0.4 s: 0.7 s in all, 0.3 s for each of the last two.
A = Outcome(started_at=10.0, num_prompt=5, num_output=3, ttft_s=0.1, latency_s=0.7, itl_s=(0.2, 0.4))
# Four tokens in two events: as many gaps as events, less one, and time per token over three tokens.
B = Outcome(started_at=10.5, num_prompt=7, num_output=4, ttft_s=0.3, latency_s=0.9, itl_s=(0.6,))
# One token: no time per output token.
C = Outcome(started_at=12.0, num_prompt=1, num_output=1, ttft_s=0.5, latency_s=0.5)
FAILED = Outcome(started_at=10.0, error="500 no")
ALL = [A, B, C, FAILED]


def test_the_times_of_one_request() -> None:
    assert A.tpot_s == pytest.approx((0.7 - 0.1) / 2)
    assert B.tpot_s == pytest.approx((0.9 - 0.3) / 3)
    assert C.tpot_s is None


def test_failed_requests_are_in_no_figure_but_their_number() -> None:
    assert seconds_of(ALL, "ttft") == [0.1, 0.3, 0.5]
    assert seconds_of(ALL, "e2el") == [0.7, 0.9, 0.5]
    assert seconds_of(ALL, "tpot") == [pytest.approx(0.3), pytest.approx(0.2)]
    assert seconds_of(ALL, "itl") == [0.2, 0.4, 0.6]


def test_all_figures_by_hand() -> None:
    found = metrics_of(ALL, 2.0, Selection(percentiles=(50.0, 99.0), goodput={"ttft": 300, "tpot": 250}))
    expected = {
        "completed": 3,
        "failed": 1,
        "total_input_tokens": 13,
        "total_output_tokens": 8,
        "request_throughput": 1.5,
        "output_throughput": 4.0,
        "total_token_throughput": 10.5,
        "request_goodput": 0.5,  # B alone: A is too slow per token, C too late with its first
        "mean_ttft_ms": 300.0,
        "median_ttft_ms": 300.0,
        "p50_ttft_ms": 300.0,
        "p99_ttft_ms": 496.0,  # between 300 and 500, at 2 x 0.99
        "std_ttft_ms": (2 / 3 * 200**2) ** 0.5,
        "mean_tpot_ms": 250.0,
        "mean_itl_ms": 400.0,
        "mean_e2el_ms": 700.0,
        "max_concurrent_requests": 2,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_without_a_request_that_succeeded_the_times_are_unknown() -> None:
    found = metrics_of([FAILED], 1.0, Selection())
    assert (found["completed"], found["failed"], found["mean_ttft_ms"]) == (0, 1, None)
    assert found["p99_e2el_ms"] is None


def test_only_the_metrics_asked_for_are_described() -> None:
    found = metrics_of(ALL, 1.0, Selection(metrics=("itl",), percentiles=(90.0, 99.9)))
    assert {name for name in found if name.endswith("_ms")} == {
        "mean_itl_ms",
        "median_itl_ms",
        "std_itl_ms",
        "p90_itl_ms",
        "p99.9_itl_ms",
    }


def test_a_request_keeps_its_limits_up_to_and_with_them() -> None:
    assert keeps(C, {"ttft": 500, "e2el": 500, "tpot": 1})
    assert not keeps(C, {"ttft": 499})
    assert not keeps(A, {"tpot": 299, "e2el": 1000})


def test_a_request_that_ends_as_another_starts_is_not_beside_it() -> None:
    first = Outcome(started_at=0.0, latency_s=1.0)
    assert peak_concurrency([first, Outcome(started_at=1.0, latency_s=1.0)]) == 1
    assert peak_concurrency([first, Outcome(started_at=0.999, latency_s=1.0)]) == 2
    assert peak_concurrency([]) == 0


def test_the_busiest_second_is_counted_from_the_first_start() -> None:
    # from 10.0: A at 0.1, 0.3, 0.7; B at 0.8, 1.4; C at 2.5
    assert peak_output_rate([A, B, C]) == 4
    assert peak_output_rate([]) == 0


def test_rows_for_comparing_have_each_requests_times_and_one_gap_for_each() -> None:
    rows = {row.test: row for row in rows_of("serve x", ALL, 2.0, Selection())}
    assert rows["serve x: requests"].samples == (1.5,)
    assert rows["serve x: TTFT"].samples == (0.1, 0.3, 0.5)
    assert rows["serve x: ITL"].samples == pytest.approx((0.3, 0.6))
    assert [row.unit for row in rows.values()] == ["req/s", "tok/s", "tok/s", "s", "s", "s", "s"]
    assert rows_of("serve x", [FAILED], 2.0, Selection()) == []


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"metrics": ("ttfb",)}, "--percentile-metrics must be of ttft, tpot, itl, e2el, got ttfb"),
        ({"percentiles": (100.5,)}, "--metric-percentiles must be in 0..100, got 100.5"),
        ({"goodput": {"itl": 5.0}}, "--goodput knows ttft, tpot, e2el, got itl"),
        ({"goodput": {"ttft": 0.0}}, "--goodput ttft must be above 0 milliseconds, got 0"),
    ],
)
def test_a_figure_that_does_not_exist_is_refused(selection: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Selection(**selection)  # type: ignore[arg-type]
    assert caught.value.what == message
