"""`scripts/bench_peers`: the order of the rounds, what the peers' tools print, ratios, and workers that die."""

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scripts.peers.bandwidth import thread_counts
from scripts.peers.llama_cpp import parse_batched_bench, parse_bench
from scripts.peers.measure import Measured, Timing, follow, measure
from scripts.peers.meter import Meter
from scripts.peers.place import Place
from scripts.peers.result import Result
from scripts.peers.rounds import Outcome, run_round
from scripts.peers.summary import is_disturbed, ratio, share_of_bandwidth, spread
from scripts.peers.tables import lines
from scripts.peers.worker import serve
from scripts.peers.worker_process import PeerFailed, WorkerProcess
from scripts.peers.workload import MODELS, TESTS, BenchTest, Request
from tests.conftest import ROOT

# Written by llama-bench -p 16 -n 0 -r 2 -o json and llama-batched-bench --output-format jsonl, fields left out.
LLAMA_BENCH = """[
  {
    "build_number": 0,
    "model_type": "qwen2 1B Q4_0",
    "n_threads": 2,
    "repack": true,
    "n_prompt": 16,
    "n_gen": 0,
    "n_depth": 0,
    "avg_ts": 46.448652,
    "samples_ns": [ 291962914, 419993540 ],
    "samples_ts": [ 54.8015, 38.0958 ]
  }
]
"""
LLAMA_BATCHED_BENCH = (
    "\nllama_perf: not a result\n"
    '{"n_kv_max": 1024, "n_batch": 2048, "n_ubatch": 512, "flash_attn": -1, "is_pp_shared": 0, "n_gpu_layers": -1,'
    ' "n_threads": 2, "n_threads_batch": 2, "pp": 16, "tg": 4, "pl": 4, "n_kv": 80, "t_pp": 1.429585,'
    ' "speed_pp": 44.768238, "t_tg": 1.132313, "speed_tg": 14.130368, "t": 2.561898, "speed": 31.226849}\n\n'
)
PROMPT, ONE, MIXED = TESTS["prompt"], TESTS["decode-1"], TESTS["mixed"]


class FakeWorker:
    """Notes who was asked what; answers with a constant, or fails, or dies."""

    def __init__(self, name: str, asked: list[str], fails_at: str = "", dies: bool = False) -> None:
        self.versions: dict[str, Any] = {}
        self.alive = True
        self._name = name
        self._asked = asked
        self._fails_at = fails_at
        self._dies = dies

    def measure(self, test: BenchTest) -> dict[str, Any]:
        self._asked.append(f"{self._name} {test.name}")
        if test.name == self._fails_at:
            self.alive = not self._dies
            raise PeerFailed("no memory")
        return {"value": 1.0}

    def close(self) -> None:
        self._asked.append(f"{self._name} closed")


def round_of(tests: Sequence[BenchTest], workers: dict[str, FakeWorker | None]) -> list[Outcome]:
    """One round of peers that can run all tests but "mixed"; None is one that does not start."""

    def start(name: str) -> tuple[FakeWorker, dict[str, Any]]:
        worker = workers[name]
        if worker is None:
            raise PeerFailed("can not start")
        return worker, {"seconds": 0.0}

    return list(run_round(1, tests, dict.fromkeys(workers, ("prompt", "decode")), start))


def figures(peer: str, test: str, *values: float) -> list[Outcome]:
    return [Outcome(number, peer, test, {"value": value}) for number, value in enumerate(values, 1)]


def test_in_a_round_every_test_goes_through_all_peers_before_the_next() -> None:
    asked: list[str] = []
    round_of([PROMPT, ONE], {name: FakeWorker(name, asked) for name in ("a", "b")})
    assert asked == ["a prompt", "b prompt", "a decode-1", "b decode-1", "a closed", "b closed"]


def test_a_peer_is_not_asked_for_what_it_can_not_run() -> None:
    asked: list[str] = []
    round_of([MIXED, ONE], {"a": FakeWorker("a", asked)})
    assert asked == ["a decode-1", "a closed"]


def test_a_peer_that_does_not_start_is_left_out_and_the_others_go_on() -> None:
    asked: list[str] = []
    outcomes = round_of([ONE], {"a": None, "b": FakeWorker("b", asked)})
    assert asked == ["b decode-1", "b closed"]
    assert [outcome.answer for outcome in outcomes if outcome.peer == "a"] == [{"error": "can not start"}]


def test_a_failed_test_does_not_end_a_peer_but_its_death_does() -> None:
    asked: list[str] = []
    workers = {
        "a": FakeWorker("a", asked, fails_at="prompt"),
        "b": FakeWorker("b", asked, fails_at="prompt", dies=True),
    }
    outcomes = round_of([PROMPT, ONE], workers)
    assert asked == ["a prompt", "b prompt", "b closed", "a decode-1", "a closed"]
    assert sum("error" in outcome.answer for outcome in outcomes) == 2


def test_workers_are_closed_when_a_round_is_interrupted() -> None:
    asked: list[str] = []
    rounds = run_round(1, [ONE], {"a": ("decode",)}, lambda name: (FakeWorker(name, asked), {}))
    next(rounds)
    rounds.close()
    assert asked == ["a closed"]


def test_ratios_are_taken_round_by_round() -> None:
    outcomes = figures("llmcli", "decode-1", 10.0, 20.0, 40.0) + figures("vllm", "decode-1", 10.0, 5.0, 20.0)
    found = ratio(outcomes, "vllm", "decode-1")
    assert found is not None
    assert (found.median, found.least, found.most, found.rounds) == (2.0, 1.0, 4.0, 3)


def beside_bandwidth(outcomes: list[Outcome], *bandwidths: float) -> list[Outcome]:
    for outcome, bandwidth in zip(outcomes, bandwidths, strict=True):
        outcome.answer["more"] = {"read_bandwidth": bandwidth}
    return outcomes


def test_a_round_without_both_figures_has_no_ratio() -> None:
    outcomes = figures("llmcli", "decode-1", 10.0, 20.0) + figures("vllm", "decode-1", 10.0)
    found = ratio(outcomes, "vllm", "decode-1")
    assert found is not None
    assert found.rounds == 1
    assert ratio(outcomes, "transformers", "decode-1") is None
    assert spread(outcomes, "transformers", "decode-1") is None


def test_the_share_of_the_bandwidth_is_taken_round_by_round() -> None:
    outcomes = beside_bandwidth(figures("llmcli", "decode-1", 10.0, 20.0), 60.0, 75.0)
    share = share_of_bandwidth(outcomes, "decode-1", 3)
    assert share is not None
    assert (share.least, share.most) == (0.5, 0.8)


@pytest.mark.parametrize(
    ("other", "steal", "marked"), [(0.4, 0.0, False), (0.6, 0.0, True), (0.3, 0.3, True)]
)
def test_a_measurement_is_marked_when_others_used_the_processor(other, steal, marked) -> None:
    meter = {"wall_s": 10.0, "own_cpu_s": 20.0, "other_cpu_s": other, "steal_s": steal}
    assert is_disturbed({"value": 1.0, "meter": meter}) is marked


def test_llama_bench_gives_tokens_over_the_time_of_all_repetitions() -> None:
    assert parse_bench(LLAMA_BENCH).value == pytest.approx(2 * 16 / (0.291962914 + 0.419993540))


def test_llama_batched_bench_gives_the_rate_of_generation() -> None:
    measured = parse_batched_bench(LLAMA_BATCHED_BENCH)
    assert measured.value == pytest.approx(14.130368)  # its own speed_tg
    assert measured.more == {"first_s": 1.429585, "decode_s": 1.132313}


def test_an_output_without_a_result_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        parse_bench("")
    with pytest.raises(ValueError, match="not enough values"):
        parse_batched_bench("main: error: unable to load model\n")


def test_the_mixed_requests_are_those_of_the_kept_results() -> None:
    requests = MIXED.requests()
    assert (len(requests), sum(len(ids) for ids, _ in requests), sum(n for _, n in requests)) == (
        64,
        9322,
        6362,
    )
    assert {32 <= len(ids) <= 256 and 64 <= count <= 128 for ids, count in requests} == {True}


def test_decoding_starts_with_different_prompts_and_counts_from_the_first_token() -> None:
    requests = TESTS["decode-4"].requests()
    assert len({tuple(ids) for ids, _ in requests}) == 4
    assert [(len(ids), count) for ids, count in requests] == [(128, 129)] * 4


class FakeGenerator:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def generate(self, requests: list[Request]) -> Timing:
        self.batches.append([count for _, count in requests])
        return Timing(first_s=2.0, decoded_tokens=sum(count - 1 for _, count in requests), total_s=10.0)


@pytest.mark.parametrize(
    ("name", "rate", "runs"), [("prompt", 512 / 2, 4), ("decode-4", 512 / 8, 2), ("mixed", 6362 / 10, 1)]
)
def test_each_test_has_its_own_rate(name: str, rate: float, runs: int) -> None:
    generator = FakeGenerator()
    assert measure(generator, TESTS[name]).value == pytest.approx(rate)
    assert len(generator.batches) == runs


def test_tokens_are_decoded_from_when_every_request_has_its_first_one() -> None:
    steps = iter([[("a", 1)], [("a", 1), ("b", 1)], [("a", 1), ("b", 1)], [("b", 1)]])
    timing = follow({"a": 3, "b": 3}, lambda: next(steps), started=0.0)
    assert timing.decoded_tokens == 3
    assert 0 < timing.first_s <= timing.total_s
    assert next(steps, None) is None


def test_a_worker_answers_every_line_though_one_fails() -> None:
    def measured(test: BenchTest) -> Measured:
        if test.kind == "mixed":
            raise MemoryError("too many")
        return Measured(7.0, {"first_s": 1.0})

    asked = ['{"name": "m", "kind": "mixed"}\n', '{"name": "d", "kind": "decode"}\n']
    answers = io.StringIO()
    serve(measured, asked, answers)
    failed, good = map(json.loads, answers.getvalue().splitlines())
    assert failed == {"error": "MemoryError: too many"}
    assert (good["value"], good["more"]) == (7.0, {"first_s": 1.0})
    assert good["meter"]["wall_s"] >= 0


def worker_process(program: str, log: Path) -> WorkerProcess:
    return WorkerProcess([sys.executable, "-c", program], {}, log)


def test_a_worker_process_is_asked_and_answers(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        """print('{"ready": {"vllm": "1"}}', flush=True)\n"""
        """for line in sys.stdin: print('{"value": 3.0}' if "mixed" not in line else '{"error": "no"}', flush=True)"""
    )
    worker = worker_process(program, tmp_path / "log")
    try:
        assert worker.versions == {"vllm": "1"}
        assert worker.measure(PROMPT) == {"value": 3.0}
        with pytest.raises(PeerFailed, match=r"^no$"):
            worker.measure(MIXED.quick())
        assert worker.alive
    finally:
        worker.close()
    assert not worker.alive


def test_the_death_of_a_worker_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(PeerFailed, match="status 1: SystemError: no such model"):
        worker_process("raise SystemError('no such model')", tmp_path / "log")


def test_a_worker_that_dies_while_measuring_is_told(tmp_path: Path) -> None:
    program = """print('{"ready": {}}', flush=True); input(); raise SystemExit("out of memory")"""
    worker = worker_process(program, tmp_path / "log")
    with pytest.raises(PeerFailed, match="status 1: out of memory"):
        worker.measure(PROMPT)
    assert not worker.alive
    worker.close()


def test_a_peer_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(PeerFailed, match="No such file"):
        WorkerProcess([str(tmp_path / "python")], {}, tmp_path / "log")


def test_the_meter_sees_own_time_and_wall_time() -> None:
    meter = Meter()
    sum(range(2_000_000))
    figures = meter.stop()
    assert figures["wall_s"] > 0
    assert figures["own_cpu_s"] > 0


def test_bandwidth_is_measured_up_to_all_threads() -> None:
    assert [thread_counts(count) for count in (1, 2, 3, 8)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8]]


@pytest.fixture
def result(tmp_path: Path) -> Result:
    """Two rounds of two peers; one died in the second, and others were left out."""
    place = Place(tmp_path / "work")
    options = {"rounds": 2, "threads": 2, "quick": False}
    result, model = Result(tmp_path / "result.json", place, options, [PROMPT, ONE]), MODELS["7b"]
    result.add_model(model)
    result.leave_out(model, "vllm", f"no model at {place.folder}/models/x")
    for number in (1, 2):
        result.add_bandwidth(
            model, number, [{"threads": n, "bytes_per_s": n * 10e9, "meter": {}} for n in (1, 2)]
        )
    versions = {"versions": {"llmcli": "0.1", "bytes_per_step": 1_000_000_000}, "seconds": 1.0}
    result.add(model, Outcome(1, "llmcli", "start", versions))
    ours = beside_bandwidth(figures("llmcli", "decode-1", 10.0, 16.0), 20e9, 20e9)
    for outcome in ours + figures("llama.cpp", "decode-1", 20.0):
        result.add(model, outcome)
    meter = {"wall_s": 1.0, "own_cpu_s": 1.0, "other_cpu_s": 1.0, "steal_s": 0.0}
    result.add(model, Outcome(1, "llama.cpp", "prompt", {"value": 5.0, "meter": meter}))
    result.add(model, Outcome(2, "llama.cpp", "decode-1", {"error": f"lost {ROOT}/scripts"}))
    return result


def test_the_file_holds_every_figure_and_no_folder_of_this_machine(result: Result, tmp_path: Path) -> None:
    text = (tmp_path / "result.json").read_text()
    document = json.loads(text)
    assert document["finished"] is None
    kept = document["models"]["7b"]
    assert kept["medians"]["decode-1"]["llmcli"]["median"] == 13.0
    assert kept["ratios"]["decode-1"]["llama.cpp"]["median"] == 0.5
    assert kept["share_of_read_bandwidth"] == {"median": 0.65, "least": 0.5, "most": 0.8, "rounds": 2}
    assert len(kept["measurements"]) == 6
    assert str(ROOT) not in text
    assert str(tmp_path) not in text


def test_the_table_has_medians_ratios_marks_and_reasons(result: Result) -> None:
    printed = "\n".join(lines(result.document()))
    assert "llmcli's weights at batch 1: 65% of what it gave then (50%..80%)" in printed
    assert "memory, 2 threads: 20.0 GB/s" in printed
    assert "llmcli AWQ                 13.00      10.00..16.00   tok/s" in printed
    assert "llama.cpp Q4_0             20.00      20.00..20.00   tok/s      0.50    0.50..0.50" in printed
    assert "5.00        5.00..5.00 * tok/s" in printed
    assert "left out: vLLM CPU bf16: no model at WORK/models/x" in printed
    assert "failed in round 2: llama.cpp Q4_0, decode-1: lost ./scripts" in printed


def test_a_step_of_the_setup_that_fails_is_told_with_the_last_line_of_its_log(tmp_path: Path) -> None:
    done = run_bench_peers("--setup", "--peers", "llama.cpp", "--work", str(tmp_path), path=str(tmp_path))
    assert done.returncode == 1
    assert "failed: cmake is not there" in done.stderr


def test_peers_that_are_not_there_are_no_failure_of_the_others_and_nothing_measured_is_one(
    tmp_path: Path,
) -> None:
    done = run_bench_peers(
        "--work", str(tmp_path), "--quick", "--rounds", "1", "--models", "7b", "--threads", "1"
    )
    assert done.returncode == 1
    assert "left out: llama.cpp Q4_0: llama.cpp is not built: --setup does it" in done.stdout
    assert "left out: llmcli AWQ: no model at WORK/models/llama-2-7b-awq: --setup makes it" in done.stdout


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    done = run_bench_peers("--tests", "decode-3")
    assert done.returncode == 2
    assert "'decode-3' is none of prompt, decode-1" in done.stderr


def run_bench_peers(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.peers", *arguments]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT}/kernels", **({"PATH": path} if path else {})}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
