"""`llmcli pull` against a hub on loopback."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest

from llmcli.cli.app import run_command_line
from tests.fake_hub import Fault, make_default, running_hub

FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": b"w" * 200_000,
    "pytorch_model.bin": b"pickle",
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The fake hub as this user's hub, with one model."""
    with running_hub() as running:
        make_default(running, tmp_path, monkeypatch)
        running.add("ada/model", FILES)
        yield running


def test_pull_prints_the_folder_and_nothing_else_on_stdout(hub, capsys):
    assert run_command_line(["pull", "ada/model"]) == 0
    out, err = capsys.readouterr()
    folder = Path(out.removesuffix("\n"))
    assert {path.name for path in folder.iterdir()} == set(FILES) - {"pytorch_model.bin"}
    assert "3 files, 195 KiB; 1 others not needed" in err
    assert "free on disk:" in err


def test_a_dry_run_lists_files_and_sizes_and_fetches_none(hub, capsys):
    assert run_command_line(["pull", "ada/model", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "model.safetensors    195 KiB" in out
    assert "to fetch: 195 KiB" in out
    assert not any("resolve" in path for path in hub.paths())


def test_quiet_says_nothing_but_the_folder(hub, capsys):
    assert run_command_line(["pull", "ada/model", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert Path(out.strip()).is_dir()
    assert err == ""


def test_a_second_pull_fetches_nothing(hub, capsys):
    run_command_line(["pull", "ada/model"])
    hub.requests.clear()
    assert run_command_line(["pull", "ada/model"]) == 0
    assert "to fetch: 0 B" in capsys.readouterr().err
    assert len(hub.requests) == 1


def test_offline_gives_the_cached_folder_without_a_request(hub, capsys):
    run_command_line(["pull", "ada/model"])
    folder = capsys.readouterr().out
    hub.requests.clear()
    assert run_command_line(["pull", "ada/model", "--offline"]) == 0
    assert capsys.readouterr().out == folder
    assert not hub.requests


def test_pull_does_not_pretend_when_the_hub_is_down(hub, capsys):
    run_command_line(["pull", "ada/model"])
    hub.fail("/api/models/ada/model", Fault("status", 500))
    assert run_command_line(["pull", "ada/model"]) == 4
    assert "status 500" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("ada/none", 4, "there is no model ada/none"),
        ("ada/model@v9", 4, "has no revision 'v9'"),
        ("model", 2, "not owner/name"),
        ("../../etc", 2, "not owner/name"),
        ("tiny-chat", 2, "comes with llmcli"),
    ],
)
def test_what_can_not_be_pulled_ends_with_its_code_and_no_traceback(hub, capsys, name, code, message):
    assert run_command_line(["pull", name]) == code
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_ctrl_c_keeps_what_arrived_and_the_same_command_goes_on(hub, tmp_path):
    hub.fail("model.safetensors", Fault("stall", after=100_000))
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "llmcli", "pull", "ada/model"]
    with subprocess.Popen(command, env=environment, stdout=PIPE, stderr=PIPE, text=True) as process:
        blobs = tmp_path / "home" / "hub" / "models--ada--model" / "blobs"
        assert eventually(lambda: any(part.stat().st_size > 90_000 for part in blobs.glob("*.incomplete")))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command again to resume" in err
    assert "Traceback" not in err
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    assert int(hub.requests[-1].headers["range"][len("bytes=") : -1]) > 90_000


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within half a minute."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if condition():
            return True
        threading.Event().wait(0.01)
    return False


def test_the_environment_of_the_hub_is_respected_by_a_real_process(hub, tmp_path):
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "hf_mine",
    }
    command = [sys.executable, "-m", "llmcli", "pull", "ada/model"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "home" / "hub")
    assert "\x1b" not in done.stderr + done.stdout
    assert hub.requests[-1].headers["authorization"] == "Bearer hf_mine"
