"""Benchmarks: a plan that does not fit is refused, the arithmetic is right, and Ctrl-C keeps what was measured."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from llmcli.cli import bench as bench_command
from llmcli.cli.app import run_command_line
from llmcli.config import EngineConfig
from llmcli.engine import build
from llmcli.engine.engine import Engine
from llmcli.errors import EngineError, OutputError, UsageError
from llmcli.gpu_facts import GpuFacts
from llmcli.hub.models import resolve_model
from llmcli.jobs import bench
from llmcli.jobs.bench import BenchPlan, Measurement, bytes_per_step, peak_memory, read_bandwidth, run_bench
from llmcli.jobs.environment import cpu_name, environment
from llmcli.runtime.runner import Wait
from llmcli.scheduler.step import Step
from tests.tiny_models import stored, tiny_chat_model

PLAN = BenchPlan(prompt_tokens=32, output_tokens=5, context_tokens=8, batches=(1, 2), repeats=3)
SMALL = ["-p", "32", "-n", "5", "-d", "8", "-b", "1,2", "-r", "3", "--threads", "1", "--dtype", "float32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("model"), num_hidden_layers=1)


def make(folder: Path, **options: Any) -> Engine:
    config = EngineConfig(**{"dtype": "float32", "num_threads": 1, "max_num_batched_tokens": 16} | options)
    return build.build_engine(resolve_model(str(folder)), config)


@dataclass
class Timed:
    """The real runner, on a clock of its own: a step takes as long as it is told, and one of them may fail."""

    runner: Any
    step_s: Callable[[int], float] = lambda number: 1.0
    fails_at: int | None = None
    error: BaseException = field(default_factory=KeyboardInterrupt)
    now: float = 0.0
    steps: int = 0

    def start(self, step: Step) -> Wait:
        self.steps += 1
        if self.steps == self.fails_at:
            raise self.error
        self.now += self.step_s(self.steps)
        wait: Wait = self.runner.start(step)
        return wait


def timed(engine: Engine, monkeypatch: pytest.MonkeyPatch, **script: Any) -> Timed:
    runner = Timed(engine._runner, **script)
    engine._runner = runner  # type: ignore[assignment]
    monkeypatch.setattr(bench.time, "perf_counter", lambda: runner.now)
    return runner


WRONG_PLANS: list[tuple[dict[str, Any], str]] = [
    ({"batches": ()}, "--batch must be one or more sizes of at least 1, got []"),
    ({"batches": (4, 0)}, "--batch must be one or more sizes of at least 1, got [4, 0]"),
    ({"repeats": 0}, "--repeats must be in 1..1000, got 0"),
    ({"repeats": 1001}, "--repeats must be in 1..1000, got 1001"),
    ({"prompt_tokens": 0}, "--prompt-tokens must be at least 1, got 0"),
    ({"context_tokens": 0}, "--context must be at least 1, got 0"),
    ({"output_tokens": 1}, "--output-tokens must be at least 2, got 1"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG_PLANS)
def test_a_plan_that_measures_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        BenchPlan(**changes)
    assert caught.value.what == message


LARGE_PLANS: list[tuple[dict[str, Any], str]] = [
    ({"prompt_tokens": 128}, "the plan needs 129 tokens of context, the engine has 128"),
    (
        {"context_tokens": 100, "output_tokens": 29},
        "the plan needs 129 tokens of context, the engine has 128",
    ),
    ({"batches": (1, 65)}, "a batch of 65 needs 65 KV blocks, the engine has .* for at most 64 sequences"),
]


@pytest.mark.parametrize(("changes", "message"), LARGE_PLANS)
def test_a_plan_that_the_engine_has_no_room_for_is_refused(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        next(run_bench(make(folder), replace(PLAN, **changes), lambda _: None))
    assert caught.value.fix


def test_a_batch_beyond_the_pool_is_refused(folder: Path) -> None:
    per_token = make(folder).config.kv_bytes_per_token
    engine = make(folder, kv_cache_memory=per_token * 16 * 10)
    with pytest.raises(UsageError, match="a batch of 11 needs 11 KV blocks, the engine has 10"):
        next(run_bench(engine, replace(PLAN, batches=(11,)), lambda _: None))


def test_median_and_spread_of_the_rates() -> None:
    measured = Measurement("generate", 4, 128, (9.0, 1.0, 2.0))
    assert (measured.name, measured.median) == ("tg128", 2.0)
    assert measured.stdev == pytest.approx(math.sqrt((5**2 + 3**2 + 2**2) / 2))
    once = Measurement("prompt", 1, 512, (3.0,))
    assert (once.name, once.median, once.stdev) == ("pp512", 3.0, 0.0)


def test_rates_are_tokens_over_the_time_of_their_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(folder)
    timed(engine, monkeypatch)
    told: list[str] = []
    prompt, one, two = run_bench(engine, PLAN, told.append)
    assert (prompt.name, prompt.rates, prompt.weight_bytes_per_s) == ("pp32", (16.0,) * 3, None)
    assert (one.name, one.batch, one.rates) == ("tg5", 1, (1.0,) * 3)
    assert (two.name, two.batch, two.rates) == ("tg5", 2, (2.0,) * 3)
    assert one.weight_bytes_per_s == two.weight_bytes_per_s == bytes_per_step(engine)
    assert told[0] == "warm-up"
    assert told[1] == "pp32, run 1 of 3"
    assert told[-1] == "tg5 at batch 2, run 3 of 3"
    assert len(told) == 10


def test_a_prompt_of_one_repeat_is_never_found_in_the_cache_of_another(folder: Path) -> None:
    engine = make(folder)
    list(run_bench(engine, replace(PLAN, batches=(1,)), lambda _: None))
    assert engine.stats().prefix_hits == 0


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


def test_a_fault_of_the_engine_ends_the_benchmark(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(folder)
    timed(engine, monkeypatch, fails_at=9, error=RuntimeError("gone"))
    with pytest.raises(EngineError, match=r"a benchmark request failed: .*gone"):
        list(run_bench(engine, PLAN, lambda _: None))


def test_the_memory_is_read_at_some_speed_and_has_some_peak() -> None:
    assert read_bandwidth(1, size=1 << 20, repeats=2) > 0
    assert peak_memory() > 1 << 20


def test_the_environment_is_plain_json_with_names_and_sizes(folder: Path) -> None:
    engine = make(folder)
    record = json.loads(json.dumps(environment(engine)))
    assert record["model"] == str(folder)
    assert (record["dtype"], record["threads"], record["quantization"]) == ("float32", 1, None)
    assert record["weight_bytes"] == engine.config.weight_bytes
    assert record["cpu"] == cpu_name() != ""
    assert all(value != "" for value in record.values())


def test_the_environment_of_a_gpu_has_its_name_and_versions(folder: Path) -> None:
    engine = make(folder)
    gpu = GpuFacts(
        name="NVIDIA H200",
        capability=(9, 0),
        total_memory=140 << 30,
        free_memory=139 << 30,
        num_sms=132,
        driver="570.86.15",
        cuda="12.8",
        triton="3.6.0",
    )
    engine.config = replace(engine.config, device="cuda", gpu=gpu)
    assert json.loads(json.dumps(environment(engine)))["gpu"] == {
        "name": "NVIDIA H200",
        "capability": "9.0",
        "memory_bytes": 140 << 30,
        "driver": "570.86.15",
        "cuda": "12.8",
        "triton": "3.6.0",
    }


def run_scripted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], fails_at: int | None = None
) -> int:
    """`llmcli bench` with the steps of a scripted clock, and little memory read."""
    engine = make(folder)
    timed(engine, monkeypatch, fails_at=fails_at)
    monkeypatch.setattr(build, "build_engine", lambda *_, **__: engine)
    monkeypatch.setattr(bench, "read_bandwidth", lambda threads, device: 1e9)
    return run_command_line(["bench", str(folder), *SMALL, *arguments])


def test_json_goes_to_stdout_and_the_same_into_the_saved_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "result.json"
    assert run_scripted(folder, monkeypatch, ["--json", "--save", str(saved)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(saved.read_text())
    assert [(test["name"], test["batch"], test["median"]) for test in result["tests"]] == [
        ("pp32", 1, 16.0),
        ("tg5", 1, 1.0),
        ("tg5", 2, 2.0),
    ]
    assert result["finished"] is True
    assert result["plan"]["batches"] == [1, 2]
    assert result["peak_memory_bytes"] > 0
    assert result["tests"][1]["roofline_share"] == result["weight_bytes_per_step"] / 1e9
    assert result["tests"][0]["roofline_share"] is None


def test_the_table_is_on_stdout_and_all_else_on_stderr(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_scripted(folder, monkeypatch, []) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines() if line.startswith(("pp32", "tg5"))]
    assert [row[:6] for row in rows] == [
        ["pp32", "1", "16.0", "0.0", "16.0", "16.0"],
        ["tg5", "1", "1.0", "0.0", "1.0", "1.0"],
        ["tg5", "2", "2.0", "0.0", "2.0", "2.0"],
    ]
    assert "warm-up" in err
    assert "warm-up" not in out
    assert run_scripted(folder, monkeypatch, ["--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_ctrl_c_keeps_what_was_measured_and_exits_with_130(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "result.json"
    # 5 steps of warm-up, 3 x 2 of the prompt and 3 x 5 at batch 1: the 28th is the second at batch 2
    code = run_scripted(folder, monkeypatch, ["--json", "--save", str(saved)], fails_at=28)
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert code == 130
    assert result["finished"] is False
    assert [(test["name"], test["batch"]) for test in result["tests"]] == [("pp32", 1), ("tg5", 1)]
    assert json.loads(saved.read_text()) == result
    assert "stopped" in err
    assert "Traceback" not in err


def test_ctrl_c_before_anything_is_measured_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "result.json"
    assert run_scripted(folder, monkeypatch, ["--save", str(saved)], fails_at=2) == 130
    assert capsys.readouterr().out == ""
    assert not saved.exists()


REFUSED: list[tuple[list[str], str]] = [
    (["--save", "nowhere/result.json"], "nowhere does not exist"),
    (["--save", "."], "--save . is a folder"),
    (["--batch", "1,x"], "must be sizes such as 1,4,8, got 1,x"),
    (["--batch", ""], "--batch must be one or more sizes"),
    (["--batch", "0"], "--batch must be one or more sizes of at least 1, got [0]"),
    (["--repeats", "0"], "--repeats must be in 1..1000, got 0"),
    (["--output-tokens", "1"], "--output-tokens must be at least 2, got 1"),
    (["--prompt-tokens", "some"], "got some"),
    (["--block-size", "7"], "--block-size must be one of"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_a_wrong_argument_is_refused_before_the_model_is_looked_for(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command_line(["bench", "no-such-owner/no-such-model", "--offline", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_result_that_can_not_be_saved_has_been_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_scripted(folder, monkeypatch, ["--json", "--save", "/dev/full"]) == OutputError.exit_code
    out, err = capsys.readouterr()
    assert json.loads(out)["finished"] is True
    assert "--save /dev/full can not be written: No space left on device" in err


def test_a_model_that_can_not_hold_the_plan_is_a_usage_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["bench", str(folder), "--threads", "1"]) == 2
    assert "the plan needs 513 tokens of context, the engine has 128" in capsys.readouterr().err


def test_the_commands_defaults_are_those_of_the_plan() -> None:
    defaults = bench_command.bench.__kwdefaults__
    plan = BenchPlan()
    assert (defaults["prompt_tokens"], defaults["output_tokens"]) == (plan.prompt_tokens, plan.output_tokens)
    assert (defaults["context"], defaults["repeats"]) == (plan.context_tokens, plan.repeats)
    assert bench_command._batches(defaults["batch"]) == plan.batches
