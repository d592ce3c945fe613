"""The quick table's job: its tests and their names, what is refused, the arithmetic of its rows, its memory figures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmcli.config import EngineConfig
from llmcli.engine.build import build_engine
from llmcli.engine.engine import Engine
from llmcli.errors import EngineError, UsageError
from llmcli.hub.models import resolve_model
from llmcli.jobs.bench.quick import (
    BenchPlan,
    BenchTest,
    bytes_per_step,
    peak_memory,
    read_bandwidth,
    run_bench,
)
from llmcli.jobs.bench.result import Row
from tests.jobs.manual_engine import ManualEngine, resolved
from tests.tiny_models import stored, tiny_chat_model

PLAN = BenchPlan(prompt_tokens=(32,), output_tokens=(5,), batches=(1, 2), repeats=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("model"), num_hidden_layers=1)


def make(folder: Path, **options: Any) -> Engine:
    config = EngineConfig(**{"dtype": "float32", "num_threads": 1, "max_num_batched_tokens": 16} | options)
    return build_engine(resolve_model(str(folder)), config)


def run(engine: ManualEngine, plan: BenchPlan, on_run: Callable[[str], None] = lambda _: None) -> list[Row]:
    """The rows as they stand at the end."""
    rows = {}
    for row in run_bench(engine, plan, on_run, clock=engine.clock):  # type: ignore[arg-type]
        rows[row.key] = row
    return list(rows.values())


@pytest.mark.parametrize(
    ("test", "name"),
    [
        (BenchTest(512, 0, 0, 1), "pp512"),
        (BenchTest(0, 128, 0, 8), "tg128"),
        (BenchTest(512, 128, 0, 8), "pp512+tg128"),
        (BenchTest(0, 128, 512, 8), "tg128 @ d512"),
        (BenchTest(16, 0, 4096, 1), "pp16 @ d4096"),
    ],
)
def test_tests_are_named_as_llama_bench_names_them(test: BenchTest, name: str) -> None:
    assert test.name == name


def test_every_combination_is_one_test_and_prompts_run_one_at_a_time() -> None:
    plan = BenchPlan(
        prompt_tokens=(8, 16), output_tokens=(4,), pairs=((8, 4),), depths=(0, 32), batches=(1, 2)
    )
    names = [(test.name, test.batch) for test in plan.tests()]
    assert names[:6] == [
        ("pp8", 1),
        ("pp16", 1),
        ("tg4", 1),
        ("pp8+tg4", 1),
        ("tg4", 2),
        ("pp8+tg4", 2),
    ]
    assert names[6:] == [(f"{name} @ d32", batch) for name, batch in names[:6]]


def test_a_length_of_zero_is_no_test() -> None:
    assert [test.name for test in BenchPlan(prompt_tokens=(0,), batches=(1,)).tests()] == ["tg128"]
    assert [test.name for test in BenchPlan(output_tokens=(0,), batches=(1, 2)).tests()] == ["pp512"]


WRONG_PLANS: list[tuple[dict[str, Any], str]] = [
    ({"batches": ()}, "--batch must be one or more sizes of at least 1, got []"),
    ({"batches": (4, 0)}, "--batch must be one or more sizes of at least 1, got [4, 0]"),
    ({"repeats": 0}, "--repeats must be in 1..1000, got 0"),
    ({"repeats": 1001}, "--repeats must be in 1..1000, got 1001"),
    ({"pairs": ((0, 5),)}, "-pg needs two lengths of at least 1, got 0,5"),
    ({"depths": ()}, "--depth must be one or more lengths, got none"),
    ({"prompt_tokens": (0,), "output_tokens": ()}, "there is nothing to measure"),
    ({"batches": tuple(range(1, 1001))}, "the plan has 1001 tests, at most 1000 are allowed"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_PLANS)
def test_a_plan_that_measures_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        BenchPlan(**changes)
    assert caught.value.what == message


LARGE_PLANS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {"prompt_tokens": (1000,)},
        {},
        "pp1000 at batch 1 needs 1001 tokens of context, the model has 1000 here",
    ),
    ({"batches": (65,)}, {"max_num_batched_tokens": 512}, "tg128 at batch 65 needs .* at most 64 sequences"),
    ({"batches": (11,)}, {"num_blocks": 98}, "tg128 at batch 11 needs 99 KV blocks, the engine has 98"),
    ({"batches": (16,)}, {}, "a batch of 16 needs --max-num-batched-tokens above it, it is 16"),
    (
        {"prompt_tokens": (16,), "depths": (32,)},
        {"enable_prefix_caching": False},
        "pp16 @ d32 needs the prefix cache",
    ),
]


@pytest.mark.parametrize(("changes", "config", "message"), LARGE_PLANS)
def test_a_plan_that_the_engine_has_no_room_for_is_refused(
    changes: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        BenchPlan(**changes).check_fits(resolved(**config))


def test_the_longest_generation_that_fits_is_allowed() -> None:
    # one token of prompt, its own answer, and one step of slack for the prompt
    BenchPlan(prompt_tokens=(), output_tokens=(997,), batches=(1,)).check_fits(resolved())
    with pytest.raises(UsageError, match="tg998 at batch 1 needs 1001 tokens"):
        BenchPlan(prompt_tokens=(), output_tokens=(998,), batches=(1,)).check_fits(resolved())


def test_rates_are_tokens_over_the_time_of_their_steps() -> None:
    told: list[str] = []
    prompt, one, two = run(ManualEngine(), PLAN, told.append)
    assert (prompt.test, prompt.samples, prompt.details["ttft_s"]) == ("pp32", (16.0,) * 3, 2.0)
    assert (one.test, one.batch, one.samples) == ("tg5", 1, (1.0,) * 3)
    assert (two.test, two.batch, two.samples) == ("tg5", 2, (2.0,) * 3)
    assert told[:2] == ["warm-up", "pp32, run 1 of 3"]
    assert told[-1] == "tg5 at batch 2, run 3 of 3"
    assert len(told) == 10


def test_a_row_comes_after_every_repeat_with_the_samples_so_far() -> None:
    engine = ManualEngine()
    rows = run_bench(engine, PLAN, lambda _: None, clock=engine.clock)  # type: ignore[arg-type]
    assert [len(row.samples) for row in rows] == [1, 2, 3] * 3


def test_generation_reads_the_weights_once_a_step_whatever_the_batch() -> None:
    engine = ManualEngine()
    prompt, one, two = run(engine, PLAN)
    per_step = 10_000 - 50 * 10 * 4  # the weights without the table that is looked up: 50 rows of 10 floats
    assert bytes_per_step(engine) == per_step  # type: ignore[arg-type]
    assert one.details["weight_bytes_per_s"] == two.details["weight_bytes_per_s"] == per_step
    assert prompt.details["weight_bytes_per_s"] is None


def test_a_prompt_behind_a_context_is_timed_without_the_context() -> None:
    plan = BenchPlan(prompt_tokens=(32,), output_tokens=(), depths=(64,), repeats=1)
    [row] = run(ManualEngine(), plan)
    assert (row.test, row.samples) == ("pp32 @ d64", (16.0,))


def test_generation_behind_a_context_starts_after_it() -> None:
    engine = ManualEngine()
    plan = BenchPlan(prompt_tokens=(), output_tokens=(4,), depths=(40,), batches=(1,), repeats=1)
    [row] = run(engine, plan)
    assert (row.test, row.samples) == ("tg4 @ d40", (1.0,))
    assert len(engine.added[-1]) == 40
    assert row.details["ttft_s"] == 3.0


def test_a_prompt_with_its_answer_counts_both_over_the_whole_time() -> None:
    plan = BenchPlan(prompt_tokens=(), output_tokens=(), pairs=((32, 3),), batches=(1,), repeats=1)
    [row] = run(ManualEngine(), plan)
    assert (row.test, row.samples) == ("pp32+tg3", (35 / 4,))


def test_a_fault_of_the_engine_ends_the_benchmark() -> None:
    with pytest.raises(EngineError, match="a benchmark request failed: gone"):
        run(ManualEngine(fails_at=20), PLAN)


def test_a_real_engine_runs_the_plan_and_finds_no_prompt_in_its_cache(folder: Path) -> None:
    engine = make(folder)
    plan = BenchPlan(prompt_tokens=(32,), output_tokens=(5,), depths=(0,), batches=(1, 3), repeats=2)
    rows = {row.key: row for row in run_bench(engine, plan, lambda _: None)}
    assert list(rows) == [("pp32", 1), ("tg5", 1), ("tg5", 3)]
    assert all(rate > 0 for row in rows.values() for rate in row.samples)
    assert engine.stats().prefix_hits == 0
    assert engine.stats().num_preemptions == 0


def test_a_real_engine_finds_the_context_in_its_cache(folder: Path) -> None:
    engine = make(folder)
    plan = BenchPlan(prompt_tokens=(32,), output_tokens=(), depths=(64,), repeats=1)
    list(run_bench(engine, plan, lambda _: None))
    assert engine.stats().prefix_hits == 64


def test_the_weights_of_a_step_are_all_but_the_table_that_is_looked_up(folder: Path, tmp_path: Path) -> None:
    tensors = stored(folder)
    whole = sum(tensor.nbytes for tensor in tensors.values())
    assert bytes_per_step(make(folder)) == whole - tensors["model.embed_tokens.weight"].nbytes
    halves = make(folder, dtype="bfloat16")
    assert bytes_per_step(halves) == (whole - tensors["model.embed_tokens.weight"].nbytes) // 2
    tied = tiny_chat_model(tmp_path, num_hidden_layers=1, tie_word_embeddings=True)
    assert bytes_per_step(make(tied)) == sum(tensor.nbytes for tensor in stored(tied).values())


def test_a_tied_int8_head_is_read_beside_the_table_that_is_looked_up(tmp_path: Path) -> None:
    folder = tiny_chat_model(tmp_path, num_hidden_layers=1, tie_word_embeddings=True)
    tensors = stored(folder)
    vocab, hidden = tensors["model.embed_tokens.weight"].shape
    others = sum(tensor.numel() for tensor in tensors.values()) - vocab * hidden
    engine = make(folder, dtype="bfloat16", device="cpu", lm_head="int8")
    assert bytes_per_step(engine) == 2 * others + vocab * (hidden + 4)  # a float32 scale for each row


def test_the_memory_is_read_at_some_speed_and_has_some_peak() -> None:
    assert read_bandwidth(1, size=1 << 20, repeats=2) > 0
    assert peak_memory() > 1 << 20
