"""`llmcli bench latency`, `throughput`, `sweep` and `startup` on the bundled model, with the least work."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmcli.cli.app import run_command_line
from llmcli.engine import build
from llmcli.jobs.bench.result import read_result

LATENCY = ["latency", "--input-len", "8", "--output-len", "4", "--batch-size", "2"]
LATENCY += ["--num-iters-warmup", "1", "--num-iters", "3"]
THROUGHPUT = ["throughput", "--num-prompts", "5", "--input-len", "8", "--output-len", "4"]
SWEEP = ["sweep", "-npp", "8,16", "-ntg", "4", "-npl", "1,2"]


def bench(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    """What is printed by `llmcli bench ...` on one thread."""
    assert run_command_line(["bench", *arguments, "--threads", "1"]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out, err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    out, _ = bench(capsys, *arguments, "--json", "--quiet")
    found: dict[str, Any] = json.loads(out)
    assert found["finished"] is True
    assert found["environment"]["model"] == "tiny-chat"
    return found


def test_latency_reports_vllms_keys_also_in_the_file_that_is_called_as_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json(capsys, *LATENCY, "--output-json", str(tmp_path / "l.json"))
    assert found == read_result(tmp_path / "l.json")
    assert len(found["latencies"]) == 3
    assert set(found["percentiles"]) == {"10", "25", "50", "75", "90", "99"}
    assert found["avg_latency"] > 0
    assert found["plan"]["batch_size"] == 2
    [row] = found["tests"]
    assert (row["test"], row["batch"], row["unit"]) == ("latency in8 out4", 2, "s")


def test_latency_is_shown_with_its_percentiles(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = bench(capsys, *LATENCY)
    assert out.splitlines()[-2].split() == [
        *("test", "batch", "latency", "TTFT"),
        *("p10", "p25", "p50", "p75", "p90", "p99"),
    ]
    assert "iteration 3 of 3" in err


def test_throughput_of_random_prompts_counts_every_token(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, *THROUGHPUT)
    assert (found["num_requests"], found["total_prompt_tokens"], found["total_output_tokens"]) == (5, 40, 20)
    assert found["tokens_per_second"] == pytest.approx(60 / found["elapsed_time"])
    assert [row["unit"] for row in found["tests"]] == ["req/s", "tok/s", "tok/s"]


def test_throughput_of_a_dataset_takes_the_lines_of_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "Hello", "max_tokens": 3}\n{"prompt_token_ids": [5, 6], "max_tokens": 2}\n')
    found = as_json(capsys, "throughput", "--dataset", str(path))
    assert (found["num_requests"], found["total_output_tokens"]) == (2, 5)


def test_throughput_is_shown_with_its_totals(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = bench(capsys, *THROUGHPUT, "-r", "2")
    assert "5 requests in" in out
    assert "40 prompt tokens (0% found in the prefix cache), 20 output tokens" in out
    assert out.count("±") == 3


def test_a_sweep_runs_all_combinations_under_batched_benchs_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = as_json(capsys, *SWEEP)
    assert [(row["PP"], row["TG"], row["B"], row["N_KV"]) for row in found["tests"]] == [
        (8, 4, 1, 12),
        (8, 4, 2, 24),
        (16, 4, 1, 20),
        (16, 4, 2, 40),
    ]
    for row in found["tests"]:
        assert row["S"] == pytest.approx(row["N_KV"] / row["T"])
        assert row["T"] == pytest.approx(row["T_PP"] + row["T_TG"])


def test_a_sweep_over_engine_options_builds_an_engine_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "sweep.png"
    arguments = [
        "sweep",
        "-p",
        "8",
        "-n",
        "4",
        "-b",
        "1",
        "--vary",
        "max-num-seqs=1,2",
        "--plot",
        str(picture),
    ]
    out, err = bench(capsys, *arguments)
    assert "max-num-seqs=1 " in out
    assert "max-num-seqs=2 " in out
    assert err.count("loaded ") == 2
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_picture_that_can_not_be_kept_costs_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "full.png"
    picture.symlink_to("/dev/full")
    out, err = bench(capsys, "sweep", "-p", "8", "-n", "4", "-b", "1", "--plot", str(picture), code=1)
    assert "as given" in out
    assert "full.png can not be written" in err


def test_startup_times_every_phase(
    program_env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", program_env["PYTHONPATH"])
    counts = ["--num-iters-cold", "0", "--num-iters-warmup", "0", "--num-iters-warm", "2"]
    found = as_json(capsys, "startup", *counts)
    names = [row["test"] for row in found["tests"]]
    phases = ["program", "torch", "read", "load", "first token"]
    assert names == ["warm start", *(f"warm start: {phase}" for phase in phases)]
    whole, *parts = (row["samples"] for row in found["tests"])
    assert whole == pytest.approx([sum(each) for each in zip(*parts, strict=True)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["latency", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["latency", "--input-len", "1000"], "need 1128 tokens of context, the model has 1024 here"),
        (["throughput", "--output-len", "1000"], "request 1 needs 1512 tokens"),
        (["throughput", "--dataset", "none.jsonl"], "no such file: none.jsonl"),
        (["throughput", "--dataset", "x", "--dataset-name", "random"], "--dataset is short for"),
        (["throughput", "--dataset", "x", "--input-len", "5"], "--input-len is for random prompts"),
        (["throughput", "--num-prompts", "0"], "--num-prompts must be at least 1, got 0"),
        (["sweep", "--vary", "treads=1"], "the engine has no option treads"),
        (["sweep", "--vary", "block-size=7"], "--block-size must be one of"),
        (["sweep", "--plot", "x.svg"], "--plot must name a .png file"),
        (["startup", "--num-iters-cold", "0", "--num-iters-warm", "0"], "nothing to measure"),
    ],
)
def test_what_can_not_be_measured_is_refused_before_the_weights_are_read(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "build_engine", lambda *_, **__: pytest.fail("the model was loaded"))
    out, err = bench(capsys, *arguments, code=2)
    assert out == ""
    assert message in err
