"""`llmcli pull` against a hub on loopback."""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import PIPE

import pytest

from llmcli.cli.app import run_command_line
from llmcli.config import human_bytes
from llmcli.hub.remote import MAX_TRIES
from tests.fake_hub import Fault, make_default, running_hub
from tests.hub.test_names import NOT_IDS
from tests.repositories import AWQ, NUM_PARAMETERS, repository, safetensors

FILES = repository() | {"pytorch_model.bin": b"pickle"}
SKIPPED = {"pytorch_model.bin", "README.md"}
SIZE = human_bytes(sum(len(content) for name, content in FILES.items() if name not in SKIPPED))
WEIGHTS = FILES["model.safetensors"]


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
    assert {path.name for path in folder.iterdir()} == set(FILES) - SKIPPED
    assert f"5 files, {SIZE}; 2 others not needed" in err


def test_size_disk_licence_and_verdict_come_before_the_download(hub, capsys):
    assert run_command_line(["pull", "ada/model"]) == 0
    lines = capsys.readouterr().err.splitlines()
    first = [line.split(":")[0] for line in lines]
    assert first[1:3] == ["licence", "to fetch"]
    assert lines[1] == "licence: apache-2.0"
    assert f"to fetch: {SIZE}; free on disk: " in lines[2]
    assert lines[3] == f"LlamaForCausalLM, {NUM_PARAMETERS:,} parameters, bfloat16"
    assert lines[4].startswith("fits here on the ")
    assert "context 4,096 tokens" in lines[4]
    assert lines[5].startswith("fetching ada/model: 5 files")


def test_a_gate_is_told_with_the_page_that_opens_it(hub, capsys):
    hub.repos["ada/model"].gated = frozenset({"hf_good"})
    assert run_command_line(["pull", "ada/model", "--token", "hf_good"]) == 0
    out, err = capsys.readouterr()
    assert f"gated: access is given at {hub.url}/ada/model" in err
    assert "hf_good" not in out + err


@pytest.mark.parametrize(("token", "message"), [(None, "no token was sent"), ("hf_bad", "ada has no access")])
def test_without_access_a_gated_model_ends_before_the_download(hub, capsys, tmp_path, token, message):
    hub.repos["ada/model"].gated = frozenset({"hf_good"})
    assert run_command_line(["pull", "ada/model", *(["--token", token] if token else [])]) == 4
    assert message in capsys.readouterr().err
    assert not (tmp_path / "hub" / "models--ada--model").exists()


def test_a_dry_run_lists_files_sizes_and_verdict_and_fetches_no_weights(hub, capsys, tmp_path):
    assert run_command_line(["pull", "ada/model", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert re.search(rf"^model.safetensors +{human_bytes(len(WEIGHTS))}$", out, re.MULTILINE)
    assert f"to fetch: {SIZE}" in out
    assert "fits here on the " in out
    assert err == ""
    assert not (tmp_path / "hub").exists()


def test_a_dry_run_of_a_model_that_is_here_tells_the_verdict_too(hub, capsys):
    run_command_line(["pull", "--quiet", "ada/model"])
    capsys.readouterr()
    assert run_command_line(["pull", "ada/model", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "to fetch: 0 B" in out
    assert "fits here on the " in out


def test_what_can_not_run_here_is_refused_before_the_download(hub, capsys, tmp_path):
    hub.add("ada/odd", repository({"architectures": ["MambaForCausalLM"]}))
    assert run_command_line(["pull", "ada/odd"]) == 5
    err = capsys.readouterr().err
    assert 'ada/odd/config.json: architecture ["MambaForCausalLM"] is not supported' in err
    assert "supported: LlamaForCausalLM" in err
    assert "--force fetches it all the same" in err
    assert not (tmp_path / "hub").exists()


def test_what_can_not_run_here_is_fetched_when_forced(hub, capsys):
    hub.add("ada/odd", repository({"architectures": ["MambaForCausalLM"]}))
    assert run_command_line(["pull", "ada/odd", "--force"]) == 0
    out, err = capsys.readouterr()
    assert Path(out.strip(), "model.safetensors").exists()
    assert "can not run here: ada/odd/config.json" in err


def test_an_unsupported_quantization_names_the_method_and_awq_copies(hub, capsys):
    hub.add("ada/tiny-gptq", repository({"quantization_config": {"quant_method": "gptq", "bits": 4}}))
    hub.add("ada/tiny-awq", repository(AWQ))
    hub.repos["ada/tiny-awq"].tags = ("awq",)
    assert run_command_line(["pull", "ada/tiny-gptq"]) == 5
    err = capsys.readouterr().err
    assert "quantization gptq is not supported" in err
    assert "supported: awq (4 bits), or no quantization; AWQ copies: ada/tiny-awq" in err


def test_a_model_that_does_not_fit_is_told_and_fetched_all_the_same(hub, capsys, small_machine):
    """It may be meant for another machine, or for a time when this one is free."""
    hub.add("ada/model-awq", repository(AWQ))
    hub.repos["ada/model-awq"].tags = ("awq",)
    assert run_command_line(["pull", "ada/model"]) == 0
    assert "does not fit here: the model does not fit: it needs " in capsys.readouterr().err


def test_patterns_choose_the_files(hub, capsys):
    assert run_command_line(["pull", "ada/model", "--include", "*.json", "--exclude", "token*"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert {path.name for path in folder.iterdir()} == {"config.json", "generation_config.json"}
    assert not any(path.endswith("safetensors") for path in hub.paths())


def test_patterns_that_leave_nothing_are_a_usage_error(hub, capsys):
    assert run_command_line(["pull", "ada/model", "--include", "*.gguf"]) == 2
    assert "no file of ada/model is left by the patterns *.gguf" in capsys.readouterr().err


def test_a_folder_of_ones_own_gets_plain_files(hub, capsys, tmp_path):
    assert run_command_line(["pull", "ada/model", "--local-dir", str(tmp_path / "mine")]) == 0
    out = capsys.readouterr().out
    assert out == f"{tmp_path / 'mine'}\n"
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == WEIGHTS
    assert not (tmp_path / "hub" / "models--ada--model").exists()


def test_a_pull_finds_what_the_disk_forgot_only_when_told_to_verify(hub, capsys):
    """The damage leaves size and time as they were, as a failing disk does."""
    run_command_line(["pull", "ada/model"])
    blob = (Path(capsys.readouterr().out.strip()) / "model.safetensors").resolve()
    times = blob.stat().st_atime_ns, blob.stat().st_mtime_ns
    with blob.open("r+b") as file:
        file.write(b"\xff")
    os.utime(blob, ns=times)
    assert run_command_line(["pull", "ada/model"]) == 0
    assert blob.read_bytes() != WEIGHTS
    assert run_command_line(["pull", "ada/model", "--verify"]) == 0
    assert "model.safetensors is damaged" in capsys.readouterr().err
    assert blob.read_bytes() == WEIGHTS


@pytest.mark.parametrize("workers", ["0", "65", "x"])
def test_the_number_of_workers_is_checked(hub, capsys, workers):
    assert run_command_line(["pull", "ada/model", "--max-workers", workers]) == 2
    assert "--max-workers" in capsys.readouterr().err


def test_one_worker_does_it_too(hub, capsys):
    assert run_command_line(["pull", "ada/model", "--max-workers", "1"]) == 0


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
    hub.fail("/api/models/ada/model", *[Fault("status", 500)] * MAX_TRIES)
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
        *((name, 2, "not owner/name") for name in NOT_IDS if not name.startswith("-")),
    ],
)
def test_what_can_not_be_pulled_ends_with_its_code_and_no_traceback(hub, capsys, name, code, message):
    assert run_command_line(["pull", name]) == code
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in err
    assert out == ""


def test_ctrl_c_keeps_what_arrived_and_the_same_command_goes_on(hub, tmp_path):
    hub.fail("model.safetensors", Fault("none"), Fault("stall", after=100_000))  # the first reads the header
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
    assert hub.ranges("model.safetensors")[-1][0] > 90_000


def test_a_pull_killed_at_any_byte_shows_nothing_half_done_and_goes_on(hub, tmp_path):
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "llmcli", "pull", "--force", "ada/model"]
    repo = tmp_path / "home" / "hub" / "models--ada--model"
    weights = repo / "blobs" / hashlib.sha256(WEIGHTS).hexdigest()
    part = weights.with_name(f"{weights.name}.incomplete")
    have = 0
    for _ in range(4):
        after = random.randrange(1, (len(WEIGHTS) - have) // 2)
        hub.fail("model.safetensors", Fault("none"), Fault("stall", after=after))
        with subprocess.Popen(command, env=environment, stdout=PIPE, stderr=PIPE) as process:
            assert eventually(partial(has_size, part, have + after))
            process.kill()
        have += after
        assert not weights.exists()
        assert not (repo / "refs").exists()
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    assert weights.read_bytes() == WEIGHTS
    assert hub.ranges("model.safetensors")[-1] == (have, None)


def test_two_pulls_at_once_both_succeed_and_bring_the_weights_once(hub, tmp_path):
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "llmcli", "pull", "ada/model"]
    pulls = [
        subprocess.Popen(command, env=environment, stdout=PIPE, stderr=PIPE, text=True) for _ in range(2)
    ]
    outputs = [pull.communicate(timeout=120) for pull in pulls]
    assert [pull.returncode for pull in pulls] == [0, 0], outputs
    assert len({out for out, _ in outputs}) == 1
    assert hub.ranges("model.safetensors").count((0, None)) == 1


def test_on_a_terminal_there_are_bars_and_the_screen_is_left_clean(hub, tmp_path):
    hub.add("ada/large", repository() | {"model.safetensors": safetensors({"a": ("BF16", [1 << 21])})})
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "TERM": "xterm"}
    command = [sys.executable, "-m", "llmcli", "pull", "--force", "ada/large"]
    text = on_a_terminal(command, environment)
    assert "ada/large" in text
    assert "MiB" in text
    assert "\x1b[?25l" in text  # the cursor is hidden while the bars move ...
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # ... and is there again
    assert re.search(r"fetched 4\.0 MiB in \d+ s", text)


def on_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What a program writes to a pseudo-terminal that is its stderr."""
    import pty

    main, other = pty.openpty()
    with subprocess.Popen(command, env=environment, stdout=PIPE, stderr=other) as process:
        os.close(other)
        text = b""
        while True:
            try:
                chunk = os.read(main, 1 << 16)
            except OSError:  # Linux says so when the other side is closed
                break
            if not chunk:
                break
            text += chunk
        process.communicate(timeout=60)
    os.close(main)
    assert process.returncode == 0, text
    return text.decode()


def has_size(path: Path, size: int) -> bool:
    """Whether a file is there with so many bytes."""
    return path.exists() and path.stat().st_size == size


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
