"""`llmcli prune`: what nothing refers to goes, all else stays."""

import json

import pytest
from filelock import FileLock

from llmcli.cli.app import run_command_line
from llmcli.config import human_bytes
from tests.fake_hub import make_default, running_hub
from tests.repositories import CONFIG, repository

OLD = repository()
NEW = OLD | {"config.json": json.dumps(CONFIG | {"rope_theta": 5.0}).encode()}


@pytest.fixture
def hub(tmp_path, monkeypatch, capsys):
    """A model in the cache whose branch moved on after its first revision was fetched."""
    with running_hub() as running:
        make_default(running, tmp_path, monkeypatch)
        for files in (OLD, NEW):
            running.add("ada/model", files)
            assert run_command_line(["pull", "--quiet", "ada/model"]) == 0
        capsys.readouterr()
        yield running


def snapshots(tmp_path):
    """Commits in the cache."""
    return {path.name for path in (tmp_path / "hub" / "models--ada--model" / "snapshots").iterdir()}


def test_a_revision_without_a_branch_goes_and_what_it_shares_stays(hub, capsys, tmp_path):
    assert run_command_line(["prune", "--yes"]) == 0
    assert capsys.readouterr().out == f"freed {human_bytes(len(OLD['config.json']))}\n"
    assert snapshots(tmp_path) == {hub.repos["ada/model"].commit("main")}
    assert run_command_line(["pull", "--offline", "ada/model"]) == 0


def test_unfinished_downloads_and_blobs_without_a_name_go(hub, capsys, tmp_path):
    run_command_line(["prune", "--yes"])
    blobs = tmp_path / "hub" / "models--ada--model" / "blobs"
    (blobs / f"{'0' * 64}.incomplete").write_bytes(b"x" * 1024)
    (blobs / ("1" * 64)).write_bytes(b"x" * 1024)
    half = tmp_path / "hub" / "models--ada--half" / "blobs"
    half.mkdir(parents=True)
    (half / f"{'2' * 64}.incomplete").write_bytes(b"x" * 1024)
    capsys.readouterr()
    assert run_command_line(["prune", "--yes"]) == 0
    assert capsys.readouterr().out == "freed 3.0 KiB\n"
    assert not half.exists()
    assert run_command_line(["pull", "--offline", "ada/model"]) == 0


def test_a_dry_run_only_tells(hub, capsys, tmp_path):
    assert run_command_line(["prune", "--dry-run"]) == 0
    assert "would free" in capsys.readouterr().out
    assert len(snapshots(tmp_path)) == 2


def test_what_is_being_fetched_is_left_alone(hub, capsys, tmp_path):
    lock = FileLock(tmp_path / "hub" / ".locks" / "models--ada--model" / f"{'0' * 64}.lock")
    with lock:
        assert run_command_line(["prune", "--yes"]) == 0
    out, err = capsys.readouterr()
    assert out == "freed 0 B\n"
    assert "ada/model is being fetched now, and stays" in err
    assert len(snapshots(tmp_path)) == 2


def test_an_empty_cache_asks_nothing(hub, capsys, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    assert run_command_line(["prune"]) == 0
    assert capsys.readouterr().out == "freed 0 B\n"


def test_without_a_terminal_yes_is_needed(hub, capsys, tmp_path):
    assert run_command_line(["prune"]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert len(snapshots(tmp_path)) == 2


def test_a_broken_copy_stays_as_pull_completes_it(hub, capsys, tmp_path):
    repo = tmp_path / "hub" / "models--ada--model"
    weights = {path.resolve() for path in repo.glob("snapshots/*/model.safetensors")}
    weights.pop().unlink()
    assert run_command_line(["prune", "--yes"]) == 0
    assert capsys.readouterr().out == "freed 0 B\n"
    assert len(snapshots(tmp_path)) == 2
