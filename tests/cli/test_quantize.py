"""`llmcli quantize` from the outside: what it refuses, shows and leaves behind, stopped politely and killed."""

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmcli.cli.app import run_command_line
from tests.conftest import RunProgram
from tests.fake_hub import FakeHub, make_default, running_hub
from tests.quantize.small_models import small_model
from tests.repositories import AWQ, repository

LAYERS = 8  # so many that a process is still busy with the next when a signal comes after one of them
QUICK = [
    "--group-size",
    "32",
    "--calib-samples",
    "4",
    "--calib-seqlen",
    "32",
    "--device",
    "cpu",
    "--threads",
    "1",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a dense model in ./dense."""
    monkeypatch.chdir(tmp_path)
    small_model(tmp_path / "dense", num_hidden_layers=LAYERS)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def start(folder: Path, env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "llmcli", "quantize", "dense", *QUICK, *arguments]
    return subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True)


def stop_after_layer(process: subprocess.Popen[str], layer: int, number: signal.Signals) -> str:
    """Send a signal when that layer is done (0: at once when work begins); returns what was said in all."""
    assert process.stderr is not None
    said = ""
    with process:
        for line in process.stderr:
            said += line
            if f"layer {layer} of" in line or (layer == 0 and "calibrating" in line):
                process.send_signal(number)
    return said


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["dense"], 2, "--output"),
        (["-o", "out"], 2, "MODEL"),
        (["dense", "-o", "none/out"], 2, "mkdir -p"),
        (["missing", "-o", "out"], 2, "owner/name or an existing folder"),
        (["dense", "-o", "out", "--bits", "3"], 2, "supported: 4"),
        (["dense", "-o", "out", "--bits", "four"], 2, "must be an integer"),
        (["dense", "-o", "out", "--group-size", "100"], 2, "supported: 32, 64, 128"),
        (["dense", "-o", "out", "--method", "gptq"], 2, "gptq"),
        (["dense", "-o", "out", "--calib-dataset", "c4"], 2, "default, or a file"),
        (["dense", "-o", "out", "--group-size", "64"], 5, "use --group-size 32"),
        (["dense", "-o", "dense"], 2, "overlap"),
        (["dense", "-o", "."], 2, "overlap"),
        (["ada/model", "--offline", "-o", "."], 2, "names no new folder"),
        (["dense", "-o", "out", "--skip", "proj", "-g", "32"], 2, "nothing to quantize"),
        (["dense", "-o", "out", "--grup-size", "64"], 2, "did you mean --group-size?"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(folder, capsys, arguments, code, said) -> None:
    assert run_command_line(["quantize", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert [path.name for path in folder.iterdir()] == ["dense"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The fake hub as this user's hub, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    with running_hub() as running:
        make_default(running, tmp_path, monkeypatch)
        yield running


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (AWQ, "ada/model is quantized already: AWQ in groups of 64"),
        ({"architectures": ["MambaForCausalLM"]}, "ada/model/config.json: architecture"),
        ({}, "which 4 bits in groups of 128 can not hold"),
    ],
)
def test_what_can_not_be_quantized_is_not_fetched(hub, capsys, tmp_path, config, said) -> None:
    hub.add("ada/model", repository(config))
    assert run_command_line(["quantize", "ada/model", "-o", "out"]) == 5
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_is_told_before_the_hub_is_asked(hub, capsys, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    assert run_command_line(["quantize", "ada/model", "-o", "out"]) == 2
    assert "-o out is there already, and not empty" in capsys.readouterr().err
    assert not hub.requests


def test_results_go_to_stdout_and_the_rest_to_stderr(folder, run_llmcli: RunProgram) -> None:
    done = run_llmcli("quantize", str(folder / "dense"), "-o", str(folder / "my model"), *QUICK)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^weights .*-\d+\.\d%$", done.stdout, re.MULTILINE)
    assert re.search(r"^perplexity +\d+\.\d+ +\d+\.\d+ +[+-]\d+\.\d%$", done.stdout, re.MULTILINE)
    assert re.search(r"layer 8 of 8: error \d+\.\d\d%, \d+\.\d s", done.stderr)
    assert f"llmcli chat '{folder}/my model'" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    answer = run_llmcli("chat", str(folder / "my model"), "hi", "-n", "4")
    assert answer.returncode == 0, answer.stderr


def test_quiet_json_is_one_object_and_no_other_word(folder, capsys) -> None:
    assert run_command_line(["quantize", "dense", "-o", "out", "-q", "--json", "--no-eval", *QUICK]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert err == ""
    assert result["output"] == "out"
    assert result["perplexity_before"] is None
    assert result["bytes_after"] < result["bytes_before"]
    assert len(result["layer_errors"]) == LAYERS


def test_ctrl_c_says_the_command_that_goes_on_and_it_does(folder, program_env, run_llmcli) -> None:
    options = ["--seed", "3", "--skip", "k_proj", "--sym"]
    process = start(folder, program_env, "-o", "the out", *options)
    said = stop_after_layer(process, 1, signal.SIGINT)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    [again] = re.findall(r"^  llmcli (.*)$", said, re.MULTILINE)
    assert not (folder / "the out").exists()
    command = [sys.executable, "-m", "llmcli", *shlex.split(again)]
    done = subprocess.run(command, cwd=folder, env=program_env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "layer 8 of 8" in done.stderr
    assert run_command_line(["quantize", "dense", "-o", "whole", *QUICK, *options]) == 0
    assert contents(folder / "the out") == contents(folder / "whole")


@pytest.mark.parametrize("layer", [0, 1, 3, 5])
def test_a_run_killed_at_any_layer_goes_on_to_the_same_bytes(folder, program_env, layer) -> None:
    process = start(folder, program_env, "-o", "out")
    stop_after_layer(process, layer, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "out").exists()
    assert run_command_line(["quantize", "dense", "-o", "out", "--resume", *QUICK]) == 0
    assert run_command_line(["quantize", "dense", "-o", "whole", *QUICK]) == 0
    assert contents(folder / "out") == contents(folder / "whole")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["dense", "out", "whole"]
