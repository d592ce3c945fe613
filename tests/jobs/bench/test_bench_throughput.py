"""`bench throughput`'s job, on an engine whose every step takes one second and sixteen tokens."""

import pytest

from llmcli.errors import UsageError
from llmcli.jobs.bench.throughput import ThroughputRun, check_works
from llmcli.jobs.bench.workload import Work
from tests.jobs.manual_engine import ManualEngine, resolved

# Both prompts fit the first step: 5 + 3 tokens; then one token each, and A goes on alone.
WORKS = [Work("token_ids", [1] * 5, 4, 5), Work("token_ids", [2] * 3, 2, 3)]


def start(engine: ManualEngine, repeats: int = 1) -> ThroughputRun:
    return ThroughputRun(engine, WORKS, "throughput x", repeats, clock=engine.clock)  # type: ignore[arg-type]


def test_rates_are_totals_over_the_whole_time() -> None:
    run = start(ManualEngine())
    [rows] = run.run(lambda _: None)
    assert [(row.test, row.unit, row.samples) for row in rows] == [
        ("throughput x: requests", "req/s", (2 / 4,)),
        ("throughput x: total", "tok/s", ((8 + 6) / 4,)),
        ("throughput x: output", "tok/s", (6 / 4,)),
    ]


def test_the_summary_has_the_keys_of_vllms_file() -> None:
    run = start(ManualEngine())
    list(run.run(lambda _: None))
    assert run.summary() == {
        "elapsed_time": 4.0,
        "num_requests": 2,
        "total_num_tokens": 14,
        "total_prompt_tokens": 8,
        "total_output_tokens": 6,
        "requests_per_second": 0.5,
        "tokens_per_second": 3.5,
    }


def test_every_repeat_is_one_run() -> None:
    run = start(ManualEngine(), repeats=3)
    *_, rows = run.run(lambda _: None)
    assert rows[0].samples == (0.5, 0.5, 0.5)


def test_a_stopped_run_counts_what_had_ended() -> None:
    # step 1 warms up; the second request ends in step 3, after two seconds
    engine = ManualEngine(interrupt_at=5)
    run = start(engine)
    with pytest.raises(KeyboardInterrupt):
        list(run.run(lambda _: None))
    requests, total, output = run.rows()
    assert (requests.samples, total.samples, output.samples) == ((0.5,), (2.5,), (1.0,))
    assert run.summary()["num_requests"] == 1


def test_a_run_stopped_before_anything_ended_has_no_rows() -> None:
    run = start(ManualEngine(interrupt_at=2))
    with pytest.raises(KeyboardInterrupt):
        list(run.run(lambda _: None))
    assert (run.rows(), run.summary()) == ([], {})


def test_a_request_beyond_the_context_is_refused_with_its_place() -> None:
    with pytest.raises(UsageError, match=r"request 1 needs 9 tokens \(5 \+ 4\), a sequence may have 8 here"):
        check_works(WORKS, resolved(max_model_len=8))
