"""`scripts/gpu_check`: the whole of it as a dry run, what becomes of stages that die, and how targets are judged."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from llmcli_kernels import SamplingBatch, select
from scripts.gpu_bench.bench_sampling import sorted_sample
from scripts.gpu_bench.engine_loops import LOOPS
from scripts.gpu_bench.engine_targets import ENGINE_TARGETS
from scripts.gpu_bench.greedy_ids import Answer, Comparison, compare
from scripts.gpu_bench.linear_peers import awq_words
from scripts.gpu_bench.stage_runner import StageResult, StageRunner
from scripts.gpu_bench.stages import ENGINES, Stage, engine_stages, kernel_stages
from scripts.gpu_bench.targets import TARGETS, Target, exactly, judge
from tests.awq_truth import load_awq_packing
from tests.conftest import ROOT

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def run_gpu_check(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": sys.executable}
    command = [str(ROOT / "scripts" / "gpu_check"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


@pytest.fixture(scope="module")
def dry_run(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """The process and its JSON."""
    path = tmp_path_factory.mktemp("gpu_check") / "result.json"
    done = run_gpu_check("kernels", "--dry-run", "--json", str(path))
    return done, json.loads(path.read_text())


def test_a_dry_run_goes_through_every_stage_and_finds_all_right(dry_run) -> None:
    done, result = dry_run
    assert done.returncode == 0, done.stderr
    assert result["correct"]
    assert result["finished"]
    wanted = [stage.name for stage in kernel_stages(dry=True)]
    assert [(stage["name"], stage["status"]) for stage in result["stages"]] == [
        (name, "ok") for name in wanted
    ]


def test_every_stage_of_a_dry_run_has_cases_that_are_right(dry_run) -> None:
    _, result = dry_run
    checks = {"self_tests", "shapes", "greedy:bundled", "greedy:int4", "tests:silu_mul"}
    for stage in result["stages"]:
        assert stage["cases"].get("check" if stage["name"] in checks else "benchmark"), stage
        assert not stage["cases"].keys() & {"failure", "skipped"}, stage


def test_a_dry_run_names_every_figure_and_claims_none(dry_run) -> None:
    _, result = dry_run
    benchmarks = [case for case in result["cases"] if case["kind"] == "benchmark"]
    assert {case["time"]["how"] for case in benchmarks} == {"dry run"}
    assert {value for case in benchmarks for value in case["figures"].values()} == {None}
    named = {(case["operation"], figure) for case in benchmarks for figure in case["figures"]}
    brought = {"x gemlite", "x torch int4"}  # not there, and without a CPU kernel
    assert {(t.operation, t.figure) for t in TARGETS if t.figure not in brought} <= named
    assert [target["met"] for target in result["targets"]] == [None] * len(TARGETS)


def test_a_dry_run_tells_where_it_ran(dry_run) -> None:
    done, result = dry_run
    assert result["dry_run"]
    assert result["environment"]["torch"] == torch.__version__
    assert "not measured" in done.stdout
    assert "µs" not in done.stdout.partition("targets")[0]


def test_a_dry_run_of_the_engine_finds_all_right_and_names_every_figure(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    done = run_gpu_check("engine", "--dry-run", "--json", str(path))
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    wanted = [stage.name for stage in engine_stages(dry=True)]
    assert [(stage["name"], stage["status"]) for stage in result["stages"]] == [
        (name, "ok") for name in wanted
    ]
    checks = [case["case"] for case in result["cases"] if case["kind"] == "check"]
    assert {name.partition(": ")[2] for name in checks} == set(LOOPS)
    benchmarks = [case for case in result["cases"] if case["kind"] == "benchmark"]
    named = {(case["operation"], figure) for case in benchmarks for figure in case["figures"]}
    assert {(t.operation, t.figure) for t in ENGINE_TARGETS if t.operation.startswith(ENGINES[0])} <= named


@needs_no_gpu
def test_without_a_gpu_it_says_what_to_do() -> None:
    done = run_gpu_check("kernels")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no CUDA GPU" in done.stderr
    assert "--dry-run" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("kernels", "--only", "kernel"), "self_tests"),
        (("kernels", "--minutes", "0"), "0.5..600"),
        (("nothing",), "kernels"),
        ((), "required"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, ...], message: str) -> None:
    done = run_gpu_check(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


STAGE = """
import os, signal, sys, threading

def run(session, what):
    good = {"kind": "check", "correct": True}
    session.case("before", lambda: good)
    session.case("bad", lambda: bad(what))
    session.case("after", lambda: good)

def bad(what):
    if what == "dies":
        print("the last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hangs":
        threading.Event().wait()
    if what == "raises":
        raise RuntimeError("no such thing")
    return {"kind": "check", "correct": False, "relative_error": float("nan")}
"""


def run_stage(tmp_path: Path, what: str, silence_s: float = 60, stopped: bool = False) -> StageResult:
    """Run the planted stage; `stopped` ends it when its first case is done."""
    (tmp_path / "planted_stage.py").write_text(STAGE)
    paths = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "kernels")))
    runner = StageRunner(dry=True, environment=os.environ | {"PYTHONPATH": paths}, folder=tmp_path)
    stage = Stage("planted", "planted_stage", budget_s=300, silence_s=silence_s, arguments=(what,))
    return runner.run(stage, 300, lambda _: runner.stop() if stopped else None)


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("raises", {"kind": "failure", "error": "RuntimeError: no such thing"}),
        ("is wrong", {"kind": "check", "correct": False, "relative_error": None}),
    ],
)
def test_a_bad_case_is_told_and_costs_no_other(tmp_path: Path, what: str, found: dict[str, Any]) -> None:
    result = run_stage(tmp_path, what)
    assert result.status == "ok"
    assert [row["case"] for row in result.rows] == ["before", "bad", "after"]
    assert found.items() <= result.rows[1].items()


def test_a_crash_is_told_with_the_end_of_its_stderr_and_costs_no_other_case(tmp_path: Path) -> None:
    result = run_stage(tmp_path, "dies")
    assert result.status == "crashed"
    assert [(row["case"], row["kind"]) for row in result.rows] == [
        ("before", "check"),
        ("bad", "failure"),
        ("after", "check"),
    ]
    assert result.rows[1]["error"] == "its process ended with SIGSEGV"
    assert "the last words" in result.rows[1]["stderr_tail"]


def test_a_hanging_case_is_ended_and_the_stage_goes_on(tmp_path: Path) -> None:
    result = run_stage(tmp_path, "hangs", silence_s=3)
    assert [row["case"] for row in result.rows] == ["before", "bad", "after"]
    assert "hangs" in result.rows[1]["error"]


def test_a_stage_that_is_stopped_keeps_what_it_has_and_blames_nobody(tmp_path: Path) -> None:
    result = run_stage(tmp_path, "hangs", stopped=True)
    assert result.status == "stopped"
    assert result.rows[0]["case"] == "before"
    assert {row["kind"] for row in result.rows[1:]} <= {"skipped"}


def test_a_stage_that_can_not_start_is_broken(tmp_path: Path) -> None:
    runner = StageRunner(dry=True, environment=dict(os.environ), folder=tmp_path)
    result = runner.run(Stage("absent", "scripts.gpu_bench.absent", budget_s=60), 60)
    assert result.status == "broken"
    assert "No module named" in result.tail


def benchmark(m: int, value: float | None) -> dict[str, Any]:
    return {"operation": "int4_linear", "case": f"M={m}", "sizes": {"m": m}, "figures": {"x": value}}


@pytest.mark.parametrize(
    ("at_most", "values", "met", "worst", "short_by"),
    [
        (False, [2.5, 2.0], True, 2.0, None),
        (False, [2.5, 1.5, 1.9], False, 1.5, 0.25),
        (True, [2.0, 1.0], True, 2.0, None),
        (True, [1.0, 3.0], False, 3.0, 0.5),
        (False, [None], None, None, None),
        (False, [], None, None, None),
    ],
)
def test_a_target_is_met_when_its_worst_case_is(
    at_most: bool, values: list[float], met: bool | None, worst: float | None, short_by: float | None
) -> None:
    target = Target("int4_linear", "x", 2.0, "", "", {"m": exactly(8)}, at_most)
    rows = [benchmark(8, value) for value in values] + [benchmark(9, 0.1 if not at_most else 9.0)]
    (verdict,) = judge(rows, [target])
    assert (verdict.met, verdict.worst) == (met, worst)
    assert verdict.short_by == (None if short_by is None else pytest.approx(short_by))


class Scripted:
    """Stands for an engine: answers to prompts, by their length."""

    def __init__(self, answers: dict[int, list[int]]) -> None:
        self.answers = answers

    def __call__(self, prompts: list[list[int]], tokens: int) -> list[Answer]:
        found = [self.answers[len(prompt)] for prompt in prompts]
        assert all(len(ids) == tokens for ids in found)
        return [answer(ids) for ids in found]


def answer(ids: list[int], other: float = -1.6) -> Answer:
    """Every place has its id with log probability -1.5, and 9 with `other`."""
    return Answer(ids, [{token: -1.5} | ({9: other} if token != 9 else {}) for token in ids])


def compared(first: list[int], then: dict[int, list[int]], bound: float) -> Comparison:
    result = Comparison()
    compare(Scripted(then), [0, 0], answer([1, 2, 3, 4]), answer(first), bound, result)
    return result


def test_equal_ids_are_the_same() -> None:
    assert compared([1, 2, 3, 4], {}, bound=0.01) == Comparison(same=True, differences=[], far=0.0)


def test_another_id_is_wrong_and_told_with_its_margin() -> None:
    result = compared([1, 9, 3, 4], {}, bound=0.01)
    assert not result.same
    assert result.differences == ["token 1 is 9, the truth has 2 by a margin of 0.1000"]


def test_behind_a_tie_the_rest_is_compared_from_the_truths_id() -> None:
    assert compared([1, 9, 7, 7], {4: [3, 4]}, bound=0.2).same
    wrong = compared([1, 9, 7, 7], {4: [3, 5]}, bound=0.2)
    assert (wrong.same, len(wrong.differences)) == (False, 2)


def test_an_id_that_is_not_among_the_likely_ones_is_wrong_by_any_margin() -> None:
    assert not compared([1, 2, 3, 8], {}, bound=100.0).same


def test_words_for_autoawqs_kernel_are_unpacked_by_autoawq_to_what_they_were_made_of() -> None:
    packing = load_awq_packing()
    rows = torch.randint(0, 16, (32, 48), dtype=torch.uint8)
    words = awq_words(rows)
    unpacked, _ = packing.unpack_awq(words, words, 4)
    ordered, _ = packing.reverse_awq_order(unpacked, unpacked, 4)
    assert torch.equal(ordered.bitwise_and(15).T.to(torch.uint8), rows)


@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [(7, 1.0, 0.0), (0, 0.8, 0.0), (9, 0.9, 0.1)])
def test_the_sort_that_sampling_is_compared_with_has_the_same_distribution(
    top_k: int, top_p: float, min_p: float
) -> None:
    draws = 2000
    logits = torch.randn(50, generator=torch.Generator().manual_seed(1)).mul(3).expand(draws, -1).contiguous()
    params = SamplingBatch(
        temperature=torch.full((draws,), 0.8),
        top_k=torch.full((draws,), top_k),
        top_p=torch.full((draws,), top_p),
        min_p=torch.full((draws,), min_p),
        uniforms=(torch.arange(draws, dtype=torch.float64) + 0.5) / draws,
    )
    expected, _ = select("cpu", "reference").sample(logits, params)
    counts = [ids.bincount(minlength=50) for ids in (expected, sorted_sample(logits, params)[:, 0])]
    assert (counts[0] - counts[1]).abs().max() <= 1
