"""Help: examples at the end of every command's, `llmcli help`, and what a shell completes."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmcli.cli.app import COMMANDS
from llmcli.cli.command import split_examples
from llmcli.cli.options import HIDDEN_ALIASES
from tests.cli.conftest import Call

RunProgram = Callable[..., subprocess.CompletedProcess[str]]
PATHS = [
    *(name.split() for name in COMMANDS if name != "config"),
    *(["config", name] for name in ("show", "set", "unset", "path", "edit")),
]


def examples(text: str) -> list[str]:
    """The lines of the section of examples."""
    _, found, lines = text.partition("\nExamples:\n")
    assert found
    return [line.strip() for line in lines.splitlines() if line.strip()]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_ends_its_help_with_examples_of_itself(path: list[str], call: Call) -> None:
    code, out, _ = call(*path, "--help")
    assert code == 0
    assert all(f"llmcli {' '.join(path)}" in line for line in examples(out))


@pytest.mark.parametrize("name", [name for name in COMMANDS if " " not in name])
def test_the_list_of_commands_says_what_the_help_of_each_begins_with(name: str, call: Call) -> None:
    """Its words stand in the table, so that nothing is imported for it."""
    _, own, _ = call(name, "--help")
    first = own.split("\n\n")[1].split(". ")[0]
    assert " ".join(first.split()).removesuffix(".") + "." == COMMANDS[name].summary
    assert COMMANDS[name].summary in call("--help")[1]


def commands_in(line: str) -> Iterator[list[str]]:
    """The arguments of each `llmcli` in an example."""
    for part in line.split("$(")[-1].split(" | "):
        words = shlex.split(part.replace(')"', ""))
        if "llmcli" in words:
            yield words[words.index("llmcli") + 1 :]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_the_options_of_the_examples_exist(path: list[str], call: Call) -> None:
    _, out, _ = call(*path, "--help")
    for line in examples(out):
        for words in commands_in(line):
            code, _, err = call(*words, "--help")
            assert code == 0, err


def test_every_hidden_alias_stands_for_an_option_that_a_command_has(call: Call) -> None:
    shown = " ".join(call(*path, "--help")[1] for path in PATHS)
    assert set(HIDDEN_ALIASES) <= set(shown.replace(",", " ").replace("/", " ").split())


def test_an_example_is_never_wrapped() -> None:
    text, lines = split_examples(
        "Do it.\n\nMore.\n\nExamples:\n    llmcli a\n\n    llmcli b " + "x" * 200 + "\n"
    )
    assert text == "Do it.\n\nMore."
    assert lines == "llmcli a\nllmcli b " + "x" * 200


def test_a_docstring_without_examples_is_all_text() -> None:
    assert split_examples("Do it.") == ("Do it.", "")


@pytest.mark.parametrize("path", [[], ["chat"], ["config"], ["config", "set"]], ids=" ".join)
def test_help_before_a_command_is_its_help(path: list[str], call: Call) -> None:
    assert call("help", *path) == call(*path, "--help")


def complete(run_llmcli: RunProgram, *words: str, **env: str) -> list[str]:
    """What bash is offered for the last word."""
    line = {"COMP_WORDS": " ".join(["llmcli", *words]), "COMP_CWORD": str(len(words))}
    done = run_llmcli(env={"_LLMCLI_COMPLETE": "complete_bash"} | line | env)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ben"], ["bench"]),
        (["config", "un"], ["unset"]),
        (["chat", "--temp"], ["--temperature"]),
        (["chat", "--dtype", "bf"], ["bfloat16"]),
        (["chat", "tiny"], ["tiny-chat"]),
        (["show", "ada/"], ["ada/model"]),
        (["run", "-m", "ada"], ["ada/model"]),
        (["rm", "ada"], ["ada/model"]),
        (["config", "set", "max-model"], ["max-model-len"]),
        (["list", "--format", "json"], ["json", "jsonl"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_shell_is_offered_what_fits(
    words: list[str], offered: list[str], run_llmcli: RunProgram, tmp_path: Path
) -> None:
    (tmp_path / "hub" / "models--ada--model").mkdir(parents=True)
    found = complete(run_llmcli, *words, HF_HUB_CACHE=str(tmp_path / "hub"))
    assert [word.partition(":")[0] for word in found] == offered


def test_a_broken_configuration_does_not_stop_completion(run_llmcli: RunProgram, tmp_path: Path) -> None:
    folder = tmp_path / "home" / ".config" / "llmcli"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("=")
    assert complete(run_llmcli, "chat", "--temp") == ["--temperature"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_named_shell_can_be_shown(shell: str, run_llmcli: RunProgram) -> None:
    done = run_llmcli("--show-completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_LLMCLI_COMPLETE=complete_{shell}" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_can_be_installed(shell: str, run_llmcli: RunProgram, tmp_path: Path) -> None:
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # else it is the shell that runs the tests
    assert run_llmcli("--install-completion", shell, env=named).returncode == 0
    written = [path.read_text() for path in (tmp_path / "home").rglob("*llmcli*") if path.is_file()]
    assert any(f"_LLMCLI_COMPLETE=complete_{shell}" in text for text in written)


def test_bash_itself_completes_with_the_script(program_env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "llmcli").write_text(f'#!/bin/sh\nexec {sys.executable} -m llmcli "$@"\n')
    (tmp_path / "llmcli").chmod(0o755)
    script = (
        'eval "$(llmcli --show-completion bash)"\n'
        "COMP_WORDS=(llmcli config se) COMP_CWORD=2\n"
        '$(complete -p llmcli | sed "s/.*-F \\([^ ]*\\).*/\\1/") llmcli\n'
        'echo "${COMPREPLY[@]}"'
    )
    env = program_env | {"PATH": f"{tmp_path}:{program_env['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "set\n"
