"""`bench latency`'s job, on an engine whose every step takes one second and sixteen tokens."""

from typing import Any

import pytest

from llmcli.errors import UsageError
from llmcli.jobs.bench.latency import LatencyPlan, run_latency, summary
from llmcli.jobs.bench.result import Row
from tests.jobs.manual_engine import ManualEngine, resolved

PLAN = LatencyPlan(input_len=32, output_len=4, batch_size=2, num_iters_warmup=2, num_iters=3)


def run(engine: ManualEngine, told: list[str] | None = None) -> list[Row]:
    on_run = (told if told is not None else []).append
    return list(run_latency(engine, PLAN, on_run, clock=engine.clock))  # type: ignore[arg-type]


def test_an_iteration_takes_from_the_first_prompt_to_the_last_token() -> None:
    *_, row = run(ManualEngine())
    assert (row.test, row.batch, row.unit, row.samples) == ("latency in32 out4", 2, "s", (8.0, 8.0, 8.0))
    assert row.details["ttft_s"] == (2 + 5) / 2
    assert row.details["percentiles"] == {"10": 8, "25": 8, "50": 8, "75": 8, "90": 8, "99": 8}


def test_warm_up_iterations_are_run_and_not_counted() -> None:
    engine, told = ManualEngine(), []
    rows = run(engine, told)
    assert [len(row.samples) for row in rows] == [1, 2, 3]
    assert len(engine.added) == (2 + 3) * 2
    assert told == ["warm-up 1 of 2", "warm-up 2 of 2", *(f"iteration {i} of 3" for i in (1, 2, 3))]


def test_the_summary_has_the_keys_of_vllms_file() -> None:
    row = Row(test="x", unit="s", samples=(1.0, 2.0, 3.0))
    found = summary(row)
    assert (found["avg_latency"], found["latencies"]) == (2.0, [1.0, 2.0, 3.0])
    assert found["percentiles"] == pytest.approx(
        {"10": 1.2, "25": 1.5, "50": 2, "75": 2.5, "90": 2.8, "99": 2.98}
    )


@pytest.mark.parametrize("name", ["input_len", "output_len", "batch_size", "num_iters"])
def test_a_plan_without_work_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} must be at least 1, got 0"):
        LatencyPlan(**{name: 0})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_model_len": 35}, "need 36 tokens of context, the model has 35 here"),
        ({"num_blocks": 5}, "--batch-size 2 needs 6 KV blocks, the engine has 5"),
        ({"max_num_seqs": 1}, "at most 1 sequences"),
    ],
)
def test_a_batch_that_the_engine_can_not_run_at_once_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PLAN.check_fits(resolved(**config))
