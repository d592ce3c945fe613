"""`llmcli bench serve` against a server on loopback: what it prints, keeps and refuses."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from llmcli.cli.app import run_command_line
from llmcli.jobs.bench.result import read_result
from tests.fake_hub import make_default, running_hub
from tests.sse_server import Script, completion, serving


def serve(
    script: Script, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0
) -> tuple[str, str]:
    """What `llmcli bench serve` prints."""
    few = [] if any(each.startswith("--num-prompts") for each in arguments) else ["--num-prompts=6"]
    assert run_command_line(["bench", "serve", "--base-url", script.base_url, *few, *arguments]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out, err


def test_the_result_has_vllms_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Script()) as script:
        out, _ = serve(script, capsys, "--json", "--metric-percentiles", "50,99")
    found: dict[str, Any] = json.loads(out)
    assert (found["completed"], found["failed"]) == (6, 0)
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (30, 18)
    assert found["request_throughput"] == pytest.approx(6 / found["duration"])
    for name in ("ttft", "tpot", "itl", "e2el"):
        assert found[f"mean_{name}_ms"] > 0
        assert found[f"p50_{name}_ms"] == pytest.approx(found[f"median_{name}_ms"])
        assert found[f"p99_{name}_ms"] >= found[f"p50_{name}_ms"]
    assert found["environment"]["model"] == "first-model"
    assert found["plan"]["request_rate"] == "inf"
    assert found["requests_counted_by_guess"] == 0


def test_your_default_model_is_no_name_at_the_server(
    user_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user_file.write_text("model = 'org/name'\n")
    with serving(Script()) as script:
        serve(script, capsys)
    assert {body["model"] for _, _, body in script.asked} == {"first-model"}


def test_people_see_the_four_times_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Script()) as script:
        out, err = serve(script, capsys)
    for title in ("Time to First Token (TTFT)", "(TPOT)", "Inter-token Latency (ITL)", "(E2EL)"):
        assert title in out
    assert "6 requests succeeded, 0 failed" in out
    assert "as vLLM defines them" in out
    assert "6 requests" in err


def test_the_prompts_are_as_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(
        '{"messages": [{"role": "user", "content": "one"}], "max_tokens": 9}\n{"prompt": "two"}\n'
    )
    with serving(Script()) as script:
        serve(script, capsys, "--backend", "openai-chat", "--dataset", str(path), "--num-prompts=2")
    bodies = [body for _, _, body in script.asked[1:]]
    assert {path for path, _, _ in script.asked} == {"/v1/chat/completions"}
    assert sorted((body["messages"][0]["content"], body["max_tokens"]) for body in bodies) == [
        ("one", 9),
        ("two", 128),
    ]


def test_a_tokenizer_makes_prompts_of_exact_lengths(capsys: pytest.CaptureFixture[str]) -> None:
    from llmcli.hub.models import bundled_model
    from llmcli.text.tokenizer import load_tokenizer

    with serving(Script(events=completion("a", "b"))) as script:
        serve(script, capsys, "--tokenizer", "tiny-chat", "--input-len", "20")
    tokenizer = load_tokenizer(bundled_model().path)
    lengths = {len(tokenizer.encode(body["prompt"])) for _, _, body in script.asked}
    assert lengths <= set(range(19, 23))


def test_a_tokenizer_comes_from_the_hub_without_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from llmcli.hub.models import bundled_model

    files = {path.name: path.read_bytes() for path in bundled_model().path.iterdir() if path.is_file()}
    with running_hub() as hub, serving(Script()) as script:
        make_default(hub, tmp_path, monkeypatch)
        hub.add("ada/model", files)
        serve(script, capsys, "--tokenizer", "ada/model", "--input-len", "20")
        serve(script, capsys, "--tokenizer", "ada/model", "--offline")
        fetched = [path for path in hub.paths() if "/resolve/" in path]
    assert any(path.endswith("tokenizer.json") for path in fetched)
    assert not any(path.endswith(".safetensors") for path in fetched)


def test_a_server_that_counts_nothing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Script(events=completion("a", "b"))) as script:
        out, _ = serve(script, capsys)
    assert "the server counted no tokens for 6 requests" in out


def test_goodput_counts_the_requests_that_keep_the_limits(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Script()) as script:
        out, _ = serve(script, capsys, "--goodput", "ttft:60000", "--goodput", "e2el:60000", "--json")
    found = json.loads(out)
    assert found["request_goodput"] == found["request_throughput"]


def test_save_result_names_the_file_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(Script()) as script:
        serve(script, capsys, "--save-result", "--save-detailed", "--request-rate", "1000")
    [path] = tmp_path.iterdir()
    found = read_result(path)
    assert "rate1000" in path.name
    assert (len(found["ttfts"]), [len(gaps) for gaps in found["itls"]]) == (6, [2] * 6)
    assert found["errors"] == [""] * 6


def test_failures_are_counted_named_and_give_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Script(status=500, fail_from=4)) as script:
        out, err = serve(script, capsys, "--json", code=3)
    assert (json.loads(out)["completed"], json.loads(out)["failed"]) == (3, 3)
    assert "3 of 6 requests failed" in err
    assert "500 the model is busy" in err


def test_nobody_at_the_address_gives_exit_code_6(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["bench", "serve", "--port", "1", "--model", "m"]) == 6
    assert "no server answers at http://127.0.0.1:1" in capsys.readouterr().err


def test_the_key_is_sent_and_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    saved = tmp_path / "result.json"
    with serving(Script()) as script:
        out, err = serve(script, capsys, "--save", str(saved), "--json")
    assert {headers["Authorization"] for _, headers, _ in script.asked} == {"Bearer sk-very-secret"}
    assert "sk-very-secret" not in saved.read_text() + out + err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base-url", "nonsense"], "--base-url must be like"),
        (["--endpoint", "/v1/embeddings"], "--endpoint must end in completions"),
        (["--request-rate", "0"], "must be above 0, or inf"),
        (["--percentile-metrics", "ttfb"], "--percentile-metrics must be of ttft, tpot, itl, e2el, got ttfb"),
        (["--metric-percentiles", "p99"], "--metric-percentiles must be numbers such as 50,99, got p99"),
        (["--goodput", "ttft=5"], "--goodput must be like ttft:500"),
        (["--result-dir", "x"], "go with --save-result"),
        (["--save", "a.json", "--save-result"], "both name a file"),
        (["--max-concurrency", "0"], "--max-concurrency must be at least 1"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_sent(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command_line(["bench", "serve", *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_ctrl_c_prints_and_keeps_what_has_ended(tmp_path: Path, program_env: dict[str, str]) -> None:
    saved = tmp_path / "result.json"
    gate = threading.Barrier(2)  # the trial passes; the first request waits there for the test
    with serving(Script(gate=gate)) as script:
        arguments = ["--base-url", script.base_url, "--num-prompts", "50", "--max-concurrency", "1"]
        command = [
            sys.executable,
            "-m",
            "llmcli",
            "bench",
            "serve",
            *arguments,
            "--save",
            str(saved),
            "--json",
        ]
        with subprocess.Popen(
            command, env=program_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            for _ in range(3):
                gate.wait(timeout=120)
            while len(script.asked) < 5:  # the fourth is under way: three have ended
                threading.Event().wait(0.01)
            os.kill(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
            gate.abort()
    assert process.returncode == 130, err
    found = json.loads(out)
    assert (found["finished"], found["completed"]) == (False, 3)
    assert read_result(saved) == found
    assert "stopped" in err
