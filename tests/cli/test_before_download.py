"""What chat, run and bench say, and refuse, before they fetch a model; and that `--offline` means no connection."""

import json
import os
import socket
import sys

import pytest

from llmcli.cli.app import run_command_line
from tests.fake_hub import make_default, running_hub
from tests.repositories import repository
from tests.tiny_models import tiny_chat_model

COMMANDS = {
    "chat": ["chat", "MODEL", "hello", "--max-tokens", "1"],
    "run": ["run", "PROMPTS", "-m", "MODEL", "--max-tokens", "1"],
    "bench": ["bench", "MODEL", "-p", "8", "-n", "2", "-b", "1", "--repeats", "1"],
}
EVERY_COMMAND = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The fake hub as this user's hub, with a model that runs."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    tiny_chat_model(folder, max_position_embeddings=512)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "hello"}\n')
    with running_hub() as running, open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)  # chat looks whether a prompt comes by a pipe
        make_default(running, tmp_path, monkeypatch)
        running.add("ada/tiny", {path.name: path.read_bytes() for path in folder.iterdir()})
        yield running


def run(command: str, model: str, tmp_path, *more: str) -> int:
    """Run a command on a model."""
    values = {"MODEL": model, "PROMPTS": str(tmp_path / "prompts.jsonl")}
    return run_command_line([*(values.get(word, word) for word in COMMANDS[command]), *more])


@EVERY_COMMAND
def test_what_must_be_fetched_is_told_with_the_verdict_and_runs(hub, capsys, tmp_path, command):
    assert run(command, "ada/tiny", tmp_path) == 0
    err = capsys.readouterr().err
    assert "ada/tiny: LlamaForCausalLM, " in err
    assert "fits here on the " in err
    assert err.index("fits here on the ") < err.index("fetching ada/tiny")


@EVERY_COMMAND
def test_what_is_here_already_is_not_judged_before_it_loads(hub, capsys, tmp_path, command):
    run_command_line(["pull", "--quiet", "ada/tiny"])
    capsys.readouterr()
    assert run(command, "ada/tiny", tmp_path) == 0
    assert "to fetch" not in capsys.readouterr().err


@EVERY_COMMAND
def test_what_can_not_run_is_not_fetched(hub, capsys, tmp_path, command):
    hub.add("ada/odd", repository({"architectures": ["MambaForCausalLM"]}))
    assert run(command, "ada/odd", tmp_path) == 5
    assert (
        'ada/odd/config.json: architecture ["MambaForCausalLM"] is not supported' in capsys.readouterr().err
    )
    assert not (tmp_path / "hub" / "models--ada--odd").exists()


@EVERY_COMMAND
def test_what_does_not_fit_is_not_fetched(hub, capsys, tmp_path, small_machine, command):
    assert run(command, "ada/tiny", tmp_path) == 5
    assert "ada/tiny is not fetched: the model does not fit: it needs " in capsys.readouterr().err
    assert not (tmp_path / "hub" / "models--ada--tiny").exists()


@pytest.fixture
def no_sockets(monkeypatch):
    """Every connection, and every look-up of a name, is an error."""

    def refuse(*args: object, **more: object) -> None:
        raise AssertionError(f"a connection was opened: {args}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@EVERY_COMMAND
def test_offline_opens_no_connection(hub, capsys, tmp_path, command, request):
    run_command_line(["pull", "--quiet", "ada/tiny"])
    request.getfixturevalue("no_sockets")
    assert run(command, "ada/tiny", tmp_path, "--offline") == 0
    assert run(command, "ada/none", tmp_path, "--offline") == 4
    assert "ada/none is not in the cache, and the network is off" in capsys.readouterr().err


def test_offline_pull_show_list_and_the_like_open_no_connection(hub, capsys, tmp_path, request):
    run_command_line(["pull", "--quiet", "ada/tiny"])
    request.getfixturevalue("no_sockets")
    capsys.readouterr()
    for arguments in (
        ["pull", "ada/tiny", "--offline"],
        ["pull", "ada/tiny", "--offline", "--verify"],
        ["show", "ada/tiny", "--offline"],
        ["show", "ada/tiny", "--offline", "--template"],
        ["list"],
        ["verify"],
        ["prune", "--dry-run"],
        ["rm", "ada/tiny", "--dry-run"],
    ):
        assert run_command_line(arguments) == 0, arguments
    assert run_command_line(["pull", "ada/none", "--offline"]) == 4
    assert run_command_line(["show", "ada/none", "--offline"]) == 4
    assert run_command_line(["show", "ada/none", "--offline", "--license"]) == 4
    assert run_command_line(["pull", "ada/tiny", "--offline", "--local-dir", str(tmp_path)]) == 2


def test_the_guard_against_connections_would_see_one(hub, capsys, no_sockets):
    assert run_command_line(["pull", "ada/tiny"]) != 0


def test_the_verdict_stays_off_standard_output(hub, capsys, tmp_path):
    assert run("run", "ada/tiny", tmp_path) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["finish_reason"] == "length"
