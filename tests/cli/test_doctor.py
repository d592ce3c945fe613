"""`llmcli doctor` as people and programs call it: forms, exit codes, streams."""

import json
import re
from pathlib import Path

import pytest

from llmcli.cli.app import run_command_line
from llmcli.jobs.doctor import checklist
from llmcli.jobs.doctor.check import Check, failed, passed, skipped, warned

GOOD = Check("python", lambda: passed("3.12.3", "/usr/bin/python"))
ODD = Check("threads", lambda: warned("OMP_NUM_THREADS=1", "unset it", "a detail"))
BAD = Check("hub", lambda: failed("no answer \x1b[2J", "check the network"))
NONE = Check("GPU kernels", lambda: skipped("there is no GPU"))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch):
    """Puts checks in the place of the real ones."""

    def put(*checks: Check) -> None:
        monkeypatch.setattr(checklist.Checklist, "checks", lambda self: list(checks))

    return put


def test_each_check_is_a_line_and_its_fix_another(given, capsys) -> None:
    given(GOOD, ODD, NONE)
    assert run_command_line(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "PASS  python       3.12.3",
        "WARN  threads      OMP_NUM_THREADS=1",
        "                   a detail",
        "                   fix: unset it",
        "SKIP  GPU kernels  not checked: there is no GPU",
        "",
        "1 passed, 1 warning, 1 not checked",
    ]
    assert err == ""


def test_a_failure_ends_with_code_3_and_control_characters_are_escaped(given, capsys) -> None:
    given(GOOD, BAD)
    assert run_command_line(["doctor"]) == 3
    out = capsys.readouterr().out
    assert "FAIL  hub     no answer \\x1b[2J" in out
    assert "\x1b" not in out


def test_quiet_shows_only_what_is_wrong(given, capsys) -> None:
    given(GOOD, ODD, NONE)
    assert run_command_line(["doctor", "-q"]) == 0
    assert [line[:4] for line in capsys.readouterr().out.splitlines()] == ["WARN", "    ", "    "]


def test_verbose_shows_the_details_of_what_is_fine(given, capsys) -> None:
    given(GOOD)
    assert run_command_line(["doctor", "--verbose"]) == 0
    assert "/usr/bin/python" in capsys.readouterr().out


def test_json_is_one_object_and_the_exit_code_stays(given, capsys) -> None:
    given(GOOD, BAD)
    assert run_command_line(["doctor", "--json"]) == 3
    record = json.loads(capsys.readouterr().out)
    assert record["ok"] is False
    assert [check["status"] for check in record["checks"]] == ["pass", "fail"]


def test_a_report_is_a_block_to_paste(given, capsys) -> None:
    given(GOOD)
    assert run_command_line(["doctor", "--report"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("<details>")
    assert "PASS  python  3.12.3" in out


@pytest.mark.parametrize("args", [["--smoke"], ["--json", "--report"]])
def test_options_that_do_not_go_together_are_usage(args: list[str], capsys) -> None:
    assert run_command_line(["doctor", *args]) == 2
    assert capsys.readouterr().err.startswith("error: --")


def test_the_home_folder_is_a_tilde(given, capsys, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    given(Check("disk", lambda: passed("free at /home/ada/.cache")))
    assert run_command_line(["doctor"]) == 0
    assert "free at ~/.cache" in capsys.readouterr().out


@pytest.mark.parametrize("width", [30, 40, 80, 200])
def test_on_a_terminal_no_line_is_wider_than_the_window(given, capsys, monkeypatch, width: int) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    given(Check("model cache", lambda: warned("word " * 40, "fix it " * 20)), GOOD)
    assert run_command_line(["doctor"]) == 0
    lines = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.count("word") for line in lines) == 40


def test_the_whole_program_checks_this_machine_and_the_bundled_model(run_llmcli) -> None:
    result = run_llmcli("doctor", "tiny-chat", "--smoke", "--json", "--device", "cpu")
    assert result.stderr == ""
    record = json.loads(result.stdout)
    found = {check["name"]: check for check in record["checks"]}
    assert found["answer"]["status"] == "pass"
    assert found["plan"]["details"][0] == "device: cpu (--device)"
    assert found["hub"]["found"] == "not checked: HF_HUB_OFFLINE=1"
    assert result.returncode == (0 if record["ok"] else 3)


def test_a_pipe_gets_plain_lines(run_llmcli) -> None:
    result = run_llmcli("doctor", "--offline", env={"FORCE_COLOR": ""})
    assert "\x1b" not in result.stdout + result.stderr
    assert re.match(r"PASS  python +\d", result.stdout)


def test_a_folder_without_a_model_fails_with_what_is_in_it(run_llmcli, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    result = run_llmcli("doctor", str(tmp_path), "-q", "--offline")
    assert result.returncode == 3
    assert "has no config.json" in result.stdout
    assert "notes.txt" in result.stdout


def test_it_runs_where_every_library_is_broken(run_llmcli, program_env, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("torch", "tokenizers", "huggingface_hub", "packaging", "platformdirs", "psutil", "jinja2"):
        (broken / f"{name}.py").write_text(f"raise ImportError('{name} is broken')")
    result = run_llmcli("doctor", "tiny-chat", env={"PYTHONPATH": f"{broken}:{program_env['PYTHONPATH']}"})
    assert result.returncode == 3
    assert result.stderr == ""
    assert "FAIL  torch             ImportError: torch is broken" in result.stdout
    assert "PASS  python " in result.stdout
    assert "PASS  terminal " in result.stdout
