"""`llmcli rm`: what goes, what stays, and who is asked."""

import io

import pytest

from llmcli.cli import rm
from llmcli.cli.app import run_command_line
from tests.fake_hub import make_default, running_hub

WEIGHTS = b"w" * 102_400
FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}


@pytest.fixture
def hub(tmp_path, monkeypatch, capsys):
    """A cache with one model in two revisions that share their weights."""
    with running_hub() as running:
        make_default(running, tmp_path, monkeypatch)
        running.add("ada/model", FILES)
        running.add("ada/model", FILES | {"config.json": b'{"x": 1}'}, revision="v2")
        for name in ("ada/model", "ada/model@v2"):
            assert run_command_line(["pull", "--quiet", name]) == 0
        capsys.readouterr()
        yield running


def names(capsys) -> set[str]:
    """What `llmcli list` shows."""
    run_command_line(["list", "--quiet"])
    return set(capsys.readouterr().out.split())


def test_all_revisions_of_a_model_go(hub, capsys, tmp_path):
    assert run_command_line(["rm", "ada/model", "--yes"]) == 0
    assert capsys.readouterr().out == "freed 100 KiB\n"
    assert not (tmp_path / "hub" / "models--ada--model").exists()


def test_one_revision_leaves_the_weights_that_the_other_shares(hub, capsys):
    assert run_command_line(["rm", "ada/model@v2", "--yes"]) == 0
    assert capsys.readouterr().out == "freed 8 B\n"
    assert run_command_line(["pull", "--offline", "ada/model"]) == 0
    assert run_command_line(["pull", "--offline", "ada/model@v2"]) == 4


def test_a_commit_may_be_shortened(hub, capsys):
    commit = hub.repos["ada/model"].commit("v2")
    assert run_command_line(["rm", f"ada/model@{commit[:7]}", "--yes"]) == 0
    assert capsys.readouterr().out == "freed 8 B\n"


def test_a_dry_run_deletes_nothing(hub, capsys):
    assert run_command_line(["rm", "ada/model", "--dry-run"]) == 0
    assert "would free 100 KiB" in capsys.readouterr().out
    assert "ada/model" in names(capsys)


def test_without_a_terminal_yes_is_needed(hub, capsys):
    assert run_command_line(["rm", "ada/model"]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert "ada/model" in names(capsys)


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, False), ("n\n", 1, True), ("\n", 1, True)])
def test_on_a_terminal_the_user_is_asked_and_sees_the_bytes(hub, capsys, monkeypatch, answer, code, left):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(rm.sys, "stdin", Terminal(answer))
    assert run_command_line(["rm", "ada/model"]) == code
    assert "free 100 KiB?" in capsys.readouterr().err
    assert ("ada/model" in names(capsys)) == left


@pytest.mark.parametrize(
    ("name", "code"), [("ada/none", 4), ("ada/model@v9", 4), ("tiny-chat", 2), ("../x", 2), ("*", 2)]
)
def test_one_wrong_name_deletes_nothing(hub, capsys, name, code):
    assert run_command_line(["rm", "ada/model", name, "--yes"]) == code
    assert "ada/model" in names(capsys)


def test_a_renamed_model_that_is_cached_twice_is_deleted_under_the_name_given(hub, capsys):
    hub.repos["ada/old-name"] = hub.repos["ada/model"]
    run_command_line(["pull", "--quiet", "ada/old-name"])
    assert run_command_line(["rm", "ada/old-name", "--yes"]) == 0
    capsys.readouterr()
    assert "ada/model" in names(capsys)
    assert run_command_line(["pull", "--offline", "ada/model"]) == 0


def test_an_unfinished_download_can_be_removed(hub, capsys, tmp_path):
    blobs = tmp_path / "hub" / "models--ada--model" / "blobs"
    (blobs / f"{'0' * 64}.incomplete").write_bytes(b"x" * 102_400)
    assert run_command_line(["rm", "ada/model", "--yes"]) == 0
    assert capsys.readouterr().out == "freed 200 KiB\n"
