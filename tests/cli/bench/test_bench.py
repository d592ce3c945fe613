"""`llmcli bench`: the quick table in all its forms, what is refused before the model loads, how a run is stopped."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmcli.cli.app import COMMANDS, run_command_line
from llmcli.cli.bench import quick as command
from llmcli.cli.bench.load import SUBCOMMANDS
from llmcli.config import EngineConfig
from llmcli.engine import build
from llmcli.errors import OutputError
from llmcli.hub.models import resolve_model
from llmcli.jobs.bench import quick as job
from llmcli.jobs.bench.quick import BenchPlan
from llmcli.jobs.bench.result import read_result
from llmcli.runtime.runner import Draw
from llmcli.scheduler.step import Step
from tests.tiny_models import tiny_chat_model

SMALL = ["-p", "32", "-n", "5", "-b", "1,2", "-r", "3", "--threads", "1", "--dtype", "float32"]
NAMES = [("pp32", 1), ("tg5", 1), ("tg5", 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("model"), num_hidden_layers=1)


@dataclass
class Stopping:
    """The real runner, in one of whose steps Ctrl-C is pressed."""

    runner: Any
    at: int
    steps: int = field(default=0)

    def begin(self, step: Step) -> Draw:
        self.steps += 1
        if self.steps == self.at:
            raise KeyboardInterrupt
        draw: Draw = self.runner.begin(step)
        return draw


def bench(
    folder: Path | str, monkeypatch: pytest.MonkeyPatch, *arguments: str, stopped_at: int | None = None
) -> int:
    """`llmcli bench` on a small engine, with little memory read."""
    config = EngineConfig(dtype="float32", num_threads=1, max_num_batched_tokens=16)
    engine = build.build_engine(resolve_model(str(folder)), config)
    if stopped_at is not None:
        engine._runner = Stopping(engine._runner, stopped_at)  # type: ignore[assignment]
    monkeypatch.setattr(build, "build_engine", lambda *_, **__: engine)
    monkeypatch.setattr(job, "read_bandwidth", lambda threads, device: 1e9)
    return run_command_line(["bench", str(folder), *SMALL, *arguments])


def names(result: dict[str, Any]) -> list[tuple[str, int]]:
    return [(test["test"], test["batch"]) for test in result["tests"]]


def test_json_goes_to_stdout_and_the_same_into_the_saved_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "result.json"
    assert bench(folder, monkeypatch, "--json", "--save", str(saved)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == read_result(saved)
    assert names(result) == NAMES
    assert (result["kind"], result["finished"]) == ("quick", True)
    assert result["plan"]["batches"] == [1, 2]
    assert result["environment"]["model"] == str(folder)
    assert result["peak_memory_bytes"] > 0
    pp, tg, _ = result["tests"]
    assert tg["roofline_share"] == tg["weight_bytes_per_s"] / 1e9
    assert tg["weight_bytes_per_s"] == pytest.approx(tg["median"] * result["weight_bytes_per_step"])
    assert pp["roofline_share"] is None


def test_the_table_is_on_stdout_and_all_else_on_stderr(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(folder, monkeypatch) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines() if line.startswith(("pp32", "tg5"))]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("pp32", "1", "±"),
        ("tg5", "1", "±"),
        ("tg5", "2", "±"),
    ]
    assert "LlamaForCausalLM, dense, float32" in out
    assert "not tokenizing" in out
    assert "warm-up" in err
    assert "warm-up" not in out
    assert bench(folder, monkeypatch, "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_markdown_has_llama_benchs_columns(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(folder, monkeypatch, "-o", "md") == 0
    head, rule, *rows = capsys.readouterr().out.splitlines()
    titles = [cell.strip() for cell in head.strip("|").split("|")]
    assert titles[:8] == ["model", "size", "params", "dtype", "backend", "threads", "test", "batch"]
    assert {line.count("|") for line in (head, rule, *rows)} == {len(titles) + 1}
    assert len(rows) == 3


def test_csv_has_one_line_for_each_test_with_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(folder, monkeypatch, "--output-format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["test"], int(row["batch"])) for row in rows] == NAMES
    assert {row["env_model"] for row in rows} == {str(folder)}
    assert float(rows[0]["mean"]) > 0


def test_every_line_of_json_lines_stands_for_itself(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "result.jsonl"
    assert bench(folder, monkeypatch, "-o", "jsonl", "--save", str(saved)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["test"], line["batch"]) for line in lines] == NAMES
    assert all(line["environment"]["model"] == str(folder) for line in lines)
    assert lines == [json.loads(line) for line in saved.read_text().splitlines()]


def test_ctrl_c_keeps_what_was_measured_and_exits_with_130(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "result.json"
    # warm-up: 8 steps and 2; the prompt: 3 x 2; at batch 1: 3 x 6; the second run at batch 2 begins with step 41
    code = bench(folder, monkeypatch, "--json", "--save", str(saved), stopped_at=42)
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert code == 130
    assert result["finished"] is False
    assert [len(test["samples"]) for test in result["tests"]] == [3, 3, 1]
    assert read_result(saved) == result
    assert "stopped" in err
    assert "Traceback" not in err


def test_ctrl_c_keeps_the_row_that_was_under_way_in_lines_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "result.jsonl"
    assert bench(folder, monkeypatch, "-o", "jsonl", "--save", str(saved), stopped_at=42) == 130
    printed = capsys.readouterr().out
    assert printed == saved.read_text()
    assert [len(json.loads(line)["samples"]) for line in printed.splitlines()] == [3, 3, 1]


def test_ctrl_c_before_anything_is_measured_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "result.json"
    assert bench(folder, monkeypatch, "--save", str(saved), stopped_at=2) == 130
    assert capsys.readouterr().out == ""
    assert not saved.exists()


def test_a_killed_run_leaves_the_rows_that_were_done(tmp_path: Path, program_env: dict[str, str]) -> None:
    saved = tmp_path / "result.jsonl"
    arguments = ["-p", "16", "-n", "2", "-b", "1-64", "-r", "2", "-o", "jsonl", "--save", str(saved)]
    command = [sys.executable, "-m", "llmcli", "bench", "--threads", "1", *arguments]
    with subprocess.Popen(
        command, env=program_env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        printed = [process.stdout.readline() for _ in range(3)]
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    rows = read_result(saved)["tests"]
    assert [(row["test"], row["batch"]) for row in rows[:3]] == [("pp16", 1), ("tg2", 1), ("tg2", 2)]
    assert [json.loads(line)["samples"] for line in printed] == [row["samples"] for row in rows[:3]]


REFUSED: list[tuple[list[str], str]] = [
    (["--save", "nowhere/result.json"], "nowhere does not exist"),
    (["--save", "."], "--save . is a folder"),
    (["--save", "old.json"], "--save old.json exists"),
    (["--batch", "1,x"], "got 1,x"),
    (["--batch", ""], "--batch must be one or more sizes"),
    (["--batch", "0"], "--batch must be one or more sizes of at least 1, got [0]"),
    (["-b", "1-*2"], "got 1-*2"),
    (["--repeats", "0"], "--repeats must be in 1..1000, got 0"),
    (["-p", "0", "-n", "0"], "there is nothing to measure"),
    (["-pg", "512"], "-pg takes two lengths, such as 512,128, got 512"),
    (["--prompt-tokens", "some"], "got some"),
    (["--block-size", "7"], "--block-size must be one of"),
    (["--json", "-o", "csv"], "are two forms"),
    (["-o", "xml"], "xml"),
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
    Path("old.json").write_text("{}")
    assert run_command_line(["bench", "no-such-owner/no-such-model", "--offline", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_a_plan_that_does_not_fit_is_refused_before_the_weights_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "build_engine", lambda *_, **__: pytest.fail("the model was loaded"))
    assert run_command_line(["bench", str(folder)]) == 2
    assert "pp512 at batch 1 needs 513 tokens of context, the model has 128 here" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_result_that_can_not_be_saved_has_been_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(folder, monkeypatch, "--json", "--save", "/dev/full") == OutputError.exit_code
    out, err = capsys.readouterr()
    assert json.loads(out)["finished"] is True
    assert "--save /dev/full can not be written: No space left on device" in err


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("serv", "did you mean llmcli bench serve?"),
        ("laten", "did you mean llmcli bench latency?"),
    ],
)
def test_a_mistyped_form_is_no_model(name: str, fix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["bench", name]) == 2
    assert fix in capsys.readouterr().err


def test_the_forms_that_are_known_are_those_of_the_command_line() -> None:
    assert {f"bench {form}" for form in SUBCOMMANDS} == {
        name for name in COMMANDS if name.startswith("bench ")
    }


def test_a_form_behind_an_option_is_sent_to_the_front(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["bench", "-r", "2", "latency"]) == 2
    assert "llmcli bench latency ...; a folder of that name is ./latency" in capsys.readouterr().err


def test_a_folder_called_like_a_form_is_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_chat_model(tmp_path / "latency", num_hidden_layers=1)
    monkeypatch.chdir(tmp_path)
    assert bench("./latency", monkeypatch, "--json", "-q") == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "quick"


def test_help_names_the_other_forms_and_each_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["bench", "--help"]) == 0
    out = capsys.readouterr().out
    for form in ("latency", "throughput", "serve", "startup", "sweep", "compare"):
        assert form in out
        assert run_command_line(["bench", form, "--help"]) == 0
        assert f"Usage: llmcli bench {form} " in capsys.readouterr().out


def test_the_commands_defaults_are_those_of_the_plan() -> None:
    from llmcli.cli.bench.options import numbers

    defaults = command.bench.__kwdefaults__
    plan = BenchPlan()
    assert numbers(defaults["prompt_tokens"]) == plan.prompt_tokens
    assert numbers(defaults["output_tokens"]) == plan.output_tokens
    assert numbers(defaults["depth"]) == plan.depths
    assert numbers(defaults["batch"]) == plan.batches
    assert (defaults["repeats"], defaults["seed"]) == (plan.repeats, plan.seed)
