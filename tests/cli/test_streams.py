"""What goes where: results on stdout, all else on stderr, and nothing but text where there is no terminal."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.terminal import on_terminal

RunProgram = Callable[..., subprocess.CompletedProcess[str]]

ENVIRONMENTS = {
    "plain": {},
    "dumb": {"TERM": "dumb"},
    "no colour": {"NO_COLOR": "1", "TERM": "xterm-256color"},
    "forced colour": {"FORCE_COLOR": "1", "TERM": "xterm-256color"},
    "narrow": {"COLUMNS": "40"},
}
QUICK = (
    ["--version"],
    ["--help"],
    ["help", "chat"],
    ["list"],
    ["list", "--json"],
    ["list", "-q"],
    ["config", "show", "--all", "--origin"],
    ["config", "path"],
)
FORCED = ENVIRONMENTS["forced colour"] | ENVIRONMENTS["narrow"]
GREEDY = ["--temperature", "0", "-n", "8"]
ANSWER = ["chat", "tiny-chat", "Hello!", "--stats", *GREEDY]
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")
STYLE = re.compile(r"\x1b\[[\d;]*m")
COLOUR = re.compile(r"\x1b\[[\d;]*[349][0-7]")


@pytest.mark.parametrize("env", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
@pytest.mark.parametrize("args", QUICK, ids=" ".join)
def test_what_is_listed_and_shown_is_plain_text_in_a_pipe(
    args: list[str], env: dict[str, str], run_llmcli: RunProgram
) -> None:
    done = run_llmcli(*args, env=env)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.endswith("\n")
    assert not CONTROL.search(done.stdout)


@pytest.mark.parametrize("env", [{}, FORCED], ids=["plain", "forced colour"])
def test_a_model_is_shown_in_a_pipe_without_colour_unless_it_is_asked_for(
    env: dict[str, str], run_llmcli: RunProgram
) -> None:
    done = run_llmcli("show", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(STYLE.search(done.stdout)) == bool(env)
    assert not CONTROL.search(STYLE.sub("", done.stdout))
    assert not CONTROL.search(run_llmcli("show", "--json", env=env).stdout)


@pytest.mark.parametrize("args", [["list"], ["config", "show", "--all"]], ids=" ".join)
def test_a_pipe_has_no_width(args: list[str], run_llmcli: RunProgram) -> None:
    narrow, wide = (run_llmcli(*args, env={"COLUMNS": width}).stdout for width in ("40", "200"))
    assert narrow == wide


@pytest.mark.parametrize("env", [FORCED])
def test_an_answer_in_a_pipe_is_the_answer_and_nothing_else(
    env: dict[str, str], run_llmcli: RunProgram
) -> None:
    done = run_llmcli(*ANSWER, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert not CONTROL.search(done.stdout)
    assert "TTFT" in done.stderr
    assert "TTFT" not in done.stdout
    assert "\x1b[?" not in done.stderr, "there is no cursor in a pipe"


def test_a_file_a_pipe_and_both_streams_together_hold_the_same_answer(
    program_env: dict[str, str], tmp_path: Path, run_llmcli: RunProgram
) -> None:
    answer = run_llmcli(*ANSWER).stdout
    command = [sys.executable, "-m", "llmcli", *ANSWER]
    shell = f'"$@" > {tmp_path}/out; "$@" | cat > {tmp_path}/pipe; "$@" > {tmp_path}/both 2>&1'
    subprocess.run(["sh", "-c", shell, "sh", *command], env=program_env, stdin=subprocess.DEVNULL, check=True)
    assert (tmp_path / "out").read_text() == answer
    assert (tmp_path / "pipe").read_text() == answer
    both = (tmp_path / "both").read_text()
    assert answer in both
    assert "TTFT" in both
    assert not CONTROL.search(both)


def test_a_batch_without_an_output_file_writes_records_only(run_llmcli: RunProgram) -> None:
    prompts = '{"prompt": "Hello!"}\n'
    done = run_llmcli("run", "-", *GREEDY, input=prompts, env=ENVIRONMENTS["forced colour"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{")
    assert done.stdout.count("\n") == 1
    assert not CONTROL.search(done.stdout)
    assert "1/1" in done.stderr


@pytest.mark.parametrize("env", [ENVIRONMENTS["dumb"] | ENVIRONMENTS["narrow"]])
def test_a_benchmark_prints_its_table_as_text(env: dict[str, str], run_llmcli: RunProgram) -> None:
    small = ["-p", "8", "-n", "4", "-d", "8", "-b", "1", "-r", "1"]
    done = run_llmcli("bench", *small, env=env)
    assert done.returncode == 0, done.stderr
    assert "t/s" in done.stdout
    assert not CONTROL.search(done.stdout)


@pytest.mark.parametrize(
    "args",
    [
        ["chta"],
        ["chat", "--temprature", "1"],
        ["show", "org/none"],
        ["rm", "org/none"],
        ["run", "none.jsonl"],
    ],
    ids=" ".join,
)
def test_errors_are_no_results(args: list[str], run_llmcli: RunProgram) -> None:
    done = run_llmcli(*args)
    assert done.returncode in (2, 4)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert not CONTROL.search(done.stderr)


def test_on_a_terminal_heads_are_bold_and_errors_red(program_env: dict[str, str]) -> None:
    assert "\x1b[1m" in on_terminal(["list"], program_env)
    assert COLOUR.search(on_terminal(["chta"], program_env))


def test_no_color_takes_the_colours_of_a_terminal(program_env: dict[str, str]) -> None:
    for args in (["list"], ["chta"], ["show"]):
        assert not COLOUR.search(on_terminal(args, program_env | {"NO_COLOR": "1"}))


@pytest.mark.parametrize("args", [*QUICK, ["chta"]], ids=" ".join)
def test_a_dumb_terminal_gets_no_control_sequences(args: list[str], program_env: dict[str, str]) -> None:
    assert not CONTROL.search(on_terminal(args, program_env | {"TERM": "dumb"}))


full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@full
@pytest.mark.parametrize("args", [["list"], ["show", "--json"], ANSWER, ["--help"]], ids=lambda args: args[0])
def test_a_full_disk_is_told_in_words(args: list[str], program_env: dict[str, str]) -> None:
    with open("/dev/full", "w") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "llmcli", *args],
            env=program_env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert "error: the output can not be written: No space left on device\n" in done.stderr
    assert "unexpected" not in done.stderr
    assert "Exception ignored" not in done.stderr


@full
def test_an_error_keeps_its_exit_code_where_stderr_is_full(program_env: dict[str, str]) -> None:
    with open("/dev/full", "w") as stderr:
        done = subprocess.run([sys.executable, "-m", "llmcli", "chta"], env=program_env, stderr=stderr)
    assert done.returncode == 2
