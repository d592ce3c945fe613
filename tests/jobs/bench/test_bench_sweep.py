"""`bench sweep`'s job: combinations, columns worked out by hand, and changes of the engine."""

from typing import Any

import pytest

from llmcli.config import EngineConfig
from llmcli.errors import UsageError
from llmcli.jobs.bench.sweep import SweepPlan, name_of, run_sweep, variants_of
from tests.jobs.manual_engine import ManualEngine, resolved


def test_all_combinations_of_the_lists_are_measured() -> None:
    plan = SweepPlan(input_lens=(8, 16), output_lens=(4,), batch_sizes=(1, 2))
    assert plan.points() == [(8, 4, 1), (8, 4, 2), (16, 4, 1), (16, 4, 2)]


def test_the_columns_are_those_of_batched_bench() -> None:
    engine = ManualEngine()
    plan = SweepPlan(input_lens=(32,), output_lens=(4,), batch_sizes=(2,))
    [row] = run_sweep(engine, plan, {}, lambda _: None, clock=engine.clock)  # type: ignore[arg-type]
    # the second prompt is done after 5 s; A has 4 tokens by then and B one; the last 3 take 3 s
    assert (row.test, row.batch, row.samples) == ("pp32+tg4", 2, (72 / 8,))
    assert {name: row.details[name] for name in ("PP", "TG", "B", "N_KV")} == {
        "PP": 32,
        "TG": 4,
        "B": 2,
        "N_KV": 72,
    }
    assert (row.details["T_PP"], row.details["S_PP"]) == (5.0, 64 / 5)
    assert (row.details["T_TG"], row.details["S_TG"]) == (3.0, 1.0)
    assert (row.details["T"], row.details["S"]) == (8.0, 9.0)


def test_one_token_of_output_leaves_no_generation_to_time() -> None:
    engine = ManualEngine()
    plan = SweepPlan(input_lens=(8,), output_lens=(1,), batch_sizes=(1,))
    [row] = run_sweep(engine, plan, {"num_threads": 2}, lambda _: None, clock=engine.clock)  # type: ignore[arg-type]
    assert row.test == "pp8+tg1 [threads=2]"
    assert row.details["S_TG"] is None


def test_engine_options_are_varied_in_all_combinations_by_the_names_that_people_type() -> None:
    found = variants_of(["threads=1,2", "kv-cache-dtype=auto,int8"])
    assert found == (
        {"num_threads": 1, "kv_cache_dtype": "auto"},
        {"num_threads": 1, "kv_cache_dtype": "int8"},
        {"num_threads": 2, "kv_cache_dtype": "auto"},
        {"num_threads": 2, "kv_cache_dtype": "int8"},
    )
    assert name_of(found[1]) == "threads=1 kv-cache-dtype=int8"
    for variant in found:
        EngineConfig(**variant)


def test_values_have_the_types_of_their_options() -> None:
    assert variants_of(["max-num-batched-tokens=1k"]) == ({"max_num_batched_tokens": 1000},)
    assert variants_of(["prefix-caching=on,off"]) == (
        {"enable_prefix_caching": True},
        {"enable_prefix_caching": False},
    )
    assert variants_of(["threads=auto,4"]) == ({"num_threads": None}, {"num_threads": 4})
    assert variants_of(["gpu-memory-utilization=0.5"]) == ({"gpu_memory_utilization": 0.5},)
    assert variants_of([]) == ({},)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("treads=1", "the engine has no option treads"),
        ("threads", "--vary must be like threads=1,2, got threads"),
        ("threads=", "--vary must be like threads=1,2, got threads="),
        ("threads=many", "--vary threads must be a number, got many"),
        ("prefix-caching=maybe", "--vary prefix-caching must be on or off, got maybe"),
    ],
)
def test_a_change_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        variants_of([text])
    assert caught.value.what.endswith(message)


def test_an_option_varied_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="given twice"):
        variants_of(["threads=1", "num-threads=2"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_lens": ()}, "--input-len must be one or more numbers of at least 1"),
        ({"batch_sizes": (0,)}, "--batch-size must be one or more numbers of at least 1"),
        ({"repeats": 0}, "--repeats must be at least 1, got 0"),
        ({"batch_sizes": tuple(range(1, 1002))}, "the sweep has 1001 combinations"),
    ],
)
def test_a_sweep_of_nothing_or_of_too_much_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SweepPlan(**changes)


def test_a_combination_without_room_is_refused() -> None:
    with pytest.raises(UsageError, match="tokens of context"):
        SweepPlan(input_lens=(128, 2000)).check_fits(resolved())
