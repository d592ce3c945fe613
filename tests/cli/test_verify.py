"""`llmcli verify`: cached files are hashed again."""

from pathlib import Path

import pytest

from llmcli.cli.app import run_command_line
from tests.fake_hub import make_default, running_hub
from tests.repositories import AWQ, repository


@pytest.fixture
def hub(tmp_path, monkeypatch, capsys):
    """Two models in the cache."""
    with running_hub() as running:
        make_default(running, tmp_path, monkeypatch)
        for name, config in (("ada/dense", {}), ("bob/awq", AWQ)):
            running.add(name, repository(config))
            assert run_command_line(["pull", "--quiet", name]) == 0
        capsys.readouterr()
        yield running


def damage(tmp_path: Path, name: str) -> None:
    """Change one byte of a model's weights."""
    [weights] = (tmp_path / "hub" / f"models--{name.replace('/', '--')}").glob(
        "snapshots/*/model.safetensors"
    )
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.resolve().write_bytes(content)


def test_all_models_are_checked_and_told(hub, capsys):
    assert run_command_line(["verify"]) == 0
    assert capsys.readouterr().out == "ada/dense: 5 files are right\nbob/awq: 5 files are right\n"


def test_damage_is_told_with_both_hashes_and_ends_with_code_3(hub, capsys, tmp_path):
    damage(tmp_path, "bob/awq")
    assert run_command_line(["verify"]) == 3
    out, err = capsys.readouterr()
    assert out == "ada/dense: 5 files are right\nbob/awq: 1 of 5 files damaged\n"
    assert "bob/awq: model.safetensors is damaged: its sha256 is " in err
    assert "1 of 2 models are damaged: bob/awq" in err
    assert "llmcli pull bob/awq fetches what is missing" in err
    assert run_command_line(["pull", "--quiet", "bob/awq"]) == 0
    assert run_command_line(["verify", "bob/awq"]) == 0


def test_a_copy_that_lacks_files_is_told_and_pull_completes_it(hub, capsys, tmp_path):
    [weights] = (tmp_path / "hub" / "models--bob--awq").glob("snapshots/*/model.safetensors")
    weights.resolve().unlink()
    assert run_command_line(["verify"]) == 3
    assert capsys.readouterr().out == "ada/dense: 5 files are right\nbob/awq: files are missing\n"
    assert run_command_line(["pull", "--quiet", "bob/awq"]) == 0
    assert run_command_line(["verify"]) == 0


def test_only_the_named_models_are_checked(hub, capsys, tmp_path):
    damage(tmp_path, "bob/awq")
    assert run_command_line(["verify", "ada/*"]) == 0
    assert capsys.readouterr().out == "ada/dense: 5 files are right\n"


@pytest.mark.parametrize(
    ("name", "code"), [("ada/none", 4), ("tiny-chat", 2), ("nonsense", 2), ("ada/dense@v9", 4), ("zoe/*", 4)]
)
def test_what_is_not_cached_is_told(hub, capsys, name, code):
    assert run_command_line(["verify", name]) == code
    assert "error: " in capsys.readouterr().err


def test_nothing_is_asked_of_the_hub(hub):
    hub.requests.clear()
    assert run_command_line(["verify"]) == 0
    assert not hub.requests
