"""`llmcli rm`: what goes, what stays, and who is asked."""

import io
import json
import shutil

import pytest

from llmcli.cli import rm
from llmcli.cli.app import run_command_line
from llmcli.config import human_bytes
from tests.fake_hub import make_default, running_hub
from tests.repositories import CONFIG, repository, safetensors

FILES = {
    name: content for name, content in repository().items() if name in ("config.json", "tokenizer.json")
} | {"model.safetensors": safetensors({"a": ("BF16", [51_200])})}
OTHER = json.dumps(CONFIG | {"rope_theta": 5.0}).encode()
FREED = human_bytes(sum(map(len, FILES.values())) + len(OTHER))  # both revisions
FREED_BY_ONE = human_bytes(len(OTHER))


@pytest.fixture
def hub(tmp_path, monkeypatch, capsys):
    """A cache with one model in two revisions that share their weights."""
    with running_hub() as running:
        make_default(running, tmp_path, monkeypatch)
        running.add("ada/model", FILES)
        running.add("ada/model", FILES | {"config.json": OTHER}, revision="v2")
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
    assert capsys.readouterr().out == f"freed {FREED}\n"
    assert not (tmp_path / "hub" / "models--ada--model").exists()


def test_one_revision_leaves_the_weights_that_the_other_shares(hub, capsys):
    assert run_command_line(["rm", "ada/model@v2", "--yes"]) == 0
    assert capsys.readouterr().out == f"freed {FREED_BY_ONE}\n"
    assert run_command_line(["pull", "--offline", "ada/model"]) == 0
    assert run_command_line(["pull", "--offline", "ada/model@v2"]) == 4


def test_a_commit_may_be_shortened(hub, capsys):
    commit = hub.repos["ada/model"].commit("v2")
    assert run_command_line(["rm", f"ada/model@{commit[:7]}", "--yes"]) == 0
    assert capsys.readouterr().out == f"freed {FREED_BY_ONE}\n"


def test_a_dry_run_deletes_nothing(hub, capsys):
    assert run_command_line(["rm", "ada/model", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"would free {FREED}" in out
    assert [line.split()[0] for line in out.splitlines()] == ["ada/model", "ada/model", "would"]
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
    assert f"free {FREED}?" in capsys.readouterr().err
    assert ("ada/model" in names(capsys)) == left


@pytest.mark.parametrize(
    ("name", "code"), [("ada/none", 4), ("ada/model@v9", 4), ("tiny-chat", 2), ("../x", 2), ("bob/*", 4)]
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
    total = sum(map(len, FILES.values())) + len(OTHER) + 102_400
    assert capsys.readouterr().out == f"freed {human_bytes(total)}\n"


def test_a_download_of_which_no_revision_arrived_can_be_removed(hub, capsys, tmp_path):
    blobs = tmp_path / "hub" / "models--ada--half" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{'0' * 64}.incomplete").write_bytes(b"x" * 102_400)
    assert run_command_line(["rm", "ada/half", "--yes"]) == 0
    out, err = capsys.readouterr()
    assert out == "freed 100 KiB\n"
    assert "ada/half unfinished download  100 KiB" in err
    assert not blobs.parent.exists()


def test_a_broken_copy_can_be_removed(hub, capsys, tmp_path):
    repo = tmp_path / "hub" / "models--ada--model"
    [weights] = {path.resolve() for path in repo.glob("snapshots/*/model.safetensors")}
    weights.unlink()
    assert run_command_line(["list", "--all", "--filter", "name=ada/*"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split("\t")[:2] == ["ada/model", "broken"]
    assert run_command_line(["rm", "ada/model", "--yes"]) == 0
    assert "ada/model broken copy  " in capsys.readouterr().err
    assert not repo.exists()


def test_what_the_file_system_does_not_let_go_is_told(hub, capsys, monkeypatch):
    """The hub's client warns of it, and goes on as if all were well."""

    def refuse(path: object, *more: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    assert run_command_line(["rm", "ada/model", "--yes"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "could not delete " in err
    assert "models--ada--model: Permission denied" in err
    assert "Traceback" not in err


def test_a_glob_stands_for_all_that_match(hub, capsys):
    hub.add("ada/second", FILES)
    hub.add("bob/third", FILES)
    for name in ("ada/second", "bob/third"):
        assert run_command_line(["pull", "--quiet", name]) == 0
    assert run_command_line(["rm", "ada/*", "--yes"]) == 0
    assert {name for name in names(capsys) if "/" in name} >= {"bob/third"}
    assert run_command_line(["list", "--all", "-q", "--filter", "name=ada/*"]) == 0
    assert capsys.readouterr().out == ""


def test_a_mistyped_name_is_told_with_the_nearest(hub, capsys):
    assert run_command_line(["rm", "ada/modle", "--yes"]) == 4
    assert "did you mean ada/model (in the cache)?" in capsys.readouterr().err


def test_a_folder_of_ones_own_is_not_touched(hub, capsys, tmp_path):
    (tmp_path / "mine").mkdir()
    assert run_command_line(["rm", str(tmp_path / "mine"), "--yes"]) == 2
    assert "deletes from the hub's cache only" in capsys.readouterr().err
    assert (tmp_path / "mine").is_dir()
