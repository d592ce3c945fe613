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


def test_an_alias_is_written_as_it_is_spelled_and_stands_for_its_model_everywhere(
    run_llmcli: RunProgram,
) -> None:
    run_llmcli("config", "set", "aliases.my_model", "tiny-chat")
    run_llmcli("config", "set", "aliases.my-model", "org/other")
    told = run_llmcli("config", "show").stdout
    assert "aliases.my_model\ttiny-chat" in told
    assert "aliases.my-model\torg/other" in told
    assert run_llmcli("config", "set", "--model", "my_model", "temperature", "0").returncode == 0
    assert "temperature\t0" in run_llmcli("config", "show", "my_model").stdout
    lines = '{"prompt": "What is 3 plus 4?", "model": "my_model"}\n'
    for flags in ((), ("-m", "my_model")):
        done = run_llmcli("run", "-", *flags, "--format", "text", input=lines)
        assert (done.returncode, done.stdout) == (0, "3 plus 4 is 7.\n"), done.stderr
    assert run_llmcli("config", "unset", "aliases.my_model").returncode == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[aliases]\nbad = "llama-7b"\n', "bad must be owner/name, tiny-chat or the path of a folder"),
        ('[aliases]\ntiny-chat = "org/x"\n', "tiny-chat can not be an alias"),
        ("[aliases]\nllama3.1 = 'org/x'\n", "llama3 is a table"),
        ('[aliases]\nx = "org/x"\n[models.x]\ntemperature = 1\n', "x is an alias"),
        ('[alias]\nx = "org/x"\n', "did you mean aliases?"),
    ],
)
def test_aliases_that_would_mislead_are_refused(
    content: str, said: str, user_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user_file.write_text(content)
    assert run_command_line(["show"], TABLE) == 2
    assert said in capsys.readouterr().err


def test_a_server_has_names_of_its_own(run_llmcli: RunProgram) -> None:
    run_llmcli("config", "set", "aliases.llama", "org/other")
    done = run_llmcli("chat", "--url", "http://127.0.0.1:9/v1", "llama", "hi")
    assert "org/other" not in done.stderr
    assert "127.0.0.1:9" in done.stderr
