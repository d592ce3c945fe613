"""Short names for models: in the configuration file, on the command line, and what can not be one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llmcli.cli.app import run_command_line
from tests.cli.probe_commands import TABLE
from tests.conftest import RunProgram

Understood = Callable[..., dict]


@pytest.fixture
def understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Understood:
    """What the command `show` makes of its arguments."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> dict:
        assert run_command_line(["show", *args], TABLE) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


def test_an_alias_stands_for_its_model_and_for_what_is_set_for_that(
    understood: Understood, user_file: Path
) -> None:
    user_file.write_text('[aliases]\nllama = "org/name@v2"\n[models."org/name"]\ntemperature = 0.25\n')
    shown = understood("llama")
    assert shown["model"] == "org/name@v2"
    assert shown["sampling"] == {"temperature": 0.25}
    assert understood("org/other")["model"] == "org/other"


def test_the_default_model_may_be_an_alias(understood: Understood, user_file: Path) -> None:
    user_file.write_text('model = "llama"\n[aliases]\nllama = "org/name"\n')
    assert understood()["default_model"] == "org/name"


def test_a_project_has_aliases_of_its_own(understood: Understood, user_file: Path, tmp_path: Path) -> None:
    user_file.write_text('[aliases]\nllama = "org/one"\nsmall = "org/small"\n')
    (tmp_path / "llmcli.toml").write_text('[aliases]\nllama = "org/two"\n')
    assert understood("llama")["model"] == "org/two"
    assert understood("small")["model"] == "org/small"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"org/name" = "org/other"', "org/name can not be an alias"),
        ('"a b" = "org/other"', "a b can not be an alias"),
        ('"" = "org/other"', "an empty name can not be an alias"),
        ("llama = 7", "llama must be owner/name or a folder, got 7"),
        ('llama = ""', "llama must be owner/name or a folder"),
    ],
)
def test_what_can_not_be_an_alias_is_told_with_its_file(
    line: str, said: str, user_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user_file.write_text(f"[aliases]\n{line}\n")
    assert run_command_line(["show"], TABLE) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "[aliases]" in told


def test_config_sets_shows_and_removes_an_alias(run_llmcli: RunProgram) -> None:
    assert run_llmcli("config", "set", "aliases.llama3.1", "tiny-chat").returncode == 0
    assert "aliases.llama3.1\ttiny-chat" in run_llmcli("config", "show").stdout
    assert run_llmcli("config", "set", "aliases.a/b", "tiny-chat").returncode == 2
    wrong = run_llmcli("config", "set", "aliases.x", "not a model")
    assert wrong.returncode != 0
    done = run_llmcli("chat", "llama3.1", "hi", "-n", "1")
    assert done.returncode == 0, done.stderr
    assert run_llmcli("config", "unset", "aliases.llama3.1").returncode == 0
    assert "aliases" not in run_llmcli("config", "show").stdout


def test_one_word_is_the_model_where_it_is_an_alias_and_a_model_can_be_switched_to_by_it(
    run_llmcli: RunProgram,
) -> None:
    run_llmcli("config", "set", "aliases.small", "tiny-chat")
    done = run_llmcli("chat", "small", "-t", "0", input="What is 3 plus 4?\n")
    assert done.returncode == 0, done.stderr
    assert "7" in done.stdout
    done = run_llmcli("chat", "-i", input="/model\n/model small\n")
    assert done.returncode == 0, done.stderr
    assert "  small is tiny-chat" in done.stderr
    assert "tiny-chat is in use already" in done.stderr
