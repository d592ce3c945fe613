"""The line of progress, and what is told of model and machine."""

import sys

import pytest

from llmcli.cli.bench.report import StatusLine, head_lines


def on_terminal(monkeypatch: pytest.MonkeyPatch, term: str = "xterm") -> StatusLine:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for name, value in {"COLUMNS": "20", "TERM": term}.items():
        monkeypatch.setenv(name, value)
    return StatusLine()


def test_progress_is_one_line_that_changes_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = on_terminal(monkeypatch)
    line.show("run 1")
    line.show("run 2\x07 and much more than fits")
    line.clear()
    line.clear()
    assert capsys.readouterr().err == "\r\x1b[2Krun 1\r\x1b[2Krun 2\\x07 and much…\r\x1b[2K"


def test_progress_is_plain_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    line = StatusLine()
    line.show("run 1")
    line.show("run 2")
    line.clear()
    assert capsys.readouterr().err == "run 1\nrun 2\n"


def test_a_dumb_terminal_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_terminal(monkeypatch, "dumb").show("run 1")
    assert capsys.readouterr().err == "run 1\n"


def test_model_and_machine_are_told_in_two_lines() -> None:
    environment = {
        "model": "org/m",
        "architecture": "LlamaForCausalLM",
        "quantization": None,
        "dtype": "float32",
        "weight_bytes": 1 << 20,
        "cpu": "A CPU",
        "threads": 2,
        "torch": "2.13",
        "load": 0.2,
    }
    assert head_lines(environment) == [
        "org/m: LlamaForCausalLM, dense, float32, 1.0 MiB of weights",
        "A CPU, 2 threads, torch 2.13",
    ]
    [_, busy] = head_lines(environment | {"load": 3.25, "threads": 1})
    assert busy == "A CPU, 1 thread, torch 2.13; the machine was busy before (load 3.25)"


def test_a_server_is_told_with_its_address_and_a_gpu_with_its_versions() -> None:
    gpu = {"name": "NVIDIA H200", "driver": "570", "cuda": "12.8", "triton": "3.6"}
    told = head_lines({"model": "m", "server": "http://x:1", "gpu": gpu, "torch": "2.13"})
    assert told == ["m at http://x:1", "NVIDIA H200, driver 570, CUDA 12.8, Triton 3.6, torch 2.13"]
