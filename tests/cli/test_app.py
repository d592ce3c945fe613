"""How the program ends: messages, exit codes, and nothing on stdout that is no result."""

import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmcli import __version__
from llmcli.cli.app import run_command_line

PROBE = (sys.executable, "-m", "tests.cli.probe_commands")
Probe = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def probe(program_env: dict[str, str]) -> Probe:
    def run(*args: str, input: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        command = [*PROBE, *args]
        return subprocess.run(command, input=input, env=program_env | env, capture_output=True, text=True)

    return run


def told(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    """Exit code and stderr of a command line that must print nothing on stdout."""
    code = run_command_line(list(args))
    out, err = capsys.readouterr()
    assert out == ""
    return code, err


def test_version_is_one_line_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["--version"]) == 0
    assert capsys.readouterr().out == f"llmcli {__version__}\n"


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(args) == 0
    assert re.findall(r"^  (chat|run|bench|pull|list|show|rm) ", capsys.readouterr().out, re.M) == [
        "chat",
        "run",
        "bench",
        "pull",
        "list",
        "show",
        "rm",
    ]


def test_a_mistyped_command_is_usage_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "chta") == (2, "error: no such command: chta\n  did you mean llmcli chat?\n")


def test_a_mistyped_option_is_usage_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = told(capsys, "chat", "--temprature", "1")
    assert code == 2
    assert err.splitlines() == [
        "error: no such option: --temprature",
        "  did you mean --temperature? see llmcli chat --help",
    ]


def test_control_characters_of_a_wrong_argument_are_shown_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (
        ["ch\x1b[2Jat"],
        ["--x\x1b[2J"],
        ["chat", "--top-k", "\x1b[2J"],
        ["chat", "--dtype", "\x1b[2J"],
    ):
        code, err = told(capsys, *args)
        assert code == 2
        assert "\x1b" not in err


def test_an_option_given_twice_is_usage_also_through_an_alias(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = told(capsys, "chat", "--max-tokens", "5", "--n-predict", "6")
    assert code == 2
    assert "--max-tokens is given 2 times" in err


def test_a_known_error_is_what_why_and_what_to_type(probe: Probe) -> None:
    result = probe("fail")
    assert result.returncode == 4
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "error: no access to [red]x[/]",
        "  a licence",
        "  and a login",
        "  run `hf auth login`",
    ]


def test_an_unexpected_error_is_one_line_and_a_private_log_with_the_traceback(probe: Probe) -> None:
    result = probe("crash")
    assert result.returncode == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: unexpected ZeroDivisionError: [bold]boom\\x1b[31m\n")
    log = Path(re.search(r"the traceback is in (.*)", result.stderr).group(1))
    assert "in crash\n" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("args", "env"),
    [(["--debug", "crash"], {}), (["crash", "--debug"], {}), (["crash"], {"LLMCLI_DEBUG": "1"})],
)
def test_debug_shows_the_traceback(args: list[str], env: dict[str, str], probe: Probe) -> None:
    result = probe(*args, **env)
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert "\x1b" not in result.stderr


def test_without_a_place_for_the_log_the_traceback_is_shown(probe: Probe, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    result = probe("crash")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "the traceback is above" in result.stderr


@pytest.mark.parametrize("through", ["echo", "rich"])
def test_a_reader_that_goes_away_ends_the_program_quietly(through: str, program_env: dict[str, str]) -> None:
    command = [*PROBE, "flood", through]
    with subprocess.Popen(
        command, env=program_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.read(10) == b"y" * 10
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_stdout_is_told_once(program_env: dict[str, str]) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*PROBE, "show"], env=program_env, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 1
    assert result.stderr.count("No space left on device") == 1
    assert "Exception ignored" not in result.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_is_an_empty_one(closed: str, program_env: dict[str, str]) -> None:
    command = ["sh", "-c", f'"$@" {closed}', "sh", *PROBE, "show"]
    result = subprocess.run(command, env=program_env, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_runs_the_cleanup_and_gives_its_exit_code(number: int, code: int, probe: Probe) -> None:
    result = probe("wait", str(int(number)))
    assert result.returncode == code
    assert "tidied up" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_no_to_a_question_ends_with_failure_and_no_traceback(probe: Probe) -> None:
    result = probe("sure", input="n\n")
    assert (result.returncode, result.stderr.strip()) == (1, "sure? [y/N]:")


def test_errors_are_coloured_only_where_asked_for(probe: Probe) -> None:
    assert "\x1b[" not in probe("fail").stderr
    assert "\x1b[" in probe("fail", FORCE_COLOR="1", TERM="xterm").stderr
    assert "\x1b[" not in probe("fail", FORCE_COLOR="1", NO_COLOR="1", TERM="dumb").stderr
