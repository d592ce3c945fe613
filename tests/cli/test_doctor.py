"""`llmcli doctor` as people and programs call it: forms, exit codes, streams."""

import json
import re
from pathlib import Path

import pytest

from llmcli.cli.app import run_command_line
from llmcli.jobs.doctor import checklist
from llmcli.jobs.doctor.check import Check, failed, passed, skipped, warned
from tests.cli.conftest import Call

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


@pytest.mark.parametrize("args", [["--smoke"], ["--json", "--report"], ["--quiet", "--verbose"]])
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


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Leave some of the real checks."""
    every = checklist.Checklist.checks
    monkeypatch.setattr(
        checklist.Checklist, "checks", lambda self: [check for check in every(self) if check.name in names]
    )


@pytest.mark.parametrize(
    ("text", "found", "fix"),
    [
        ("=", "is not TOML", "llmcli config edit"),
        ("sede = 1", "unknown key sede", "did you mean seed?"),
        ("[dfaults]\nseed = 1", "unknown section [dfaults]", "did you mean defaults?"),
        ("[run]\ntemperature = 9", "--temperature must be a number in 0..2, got 9", "correct it"),
        ('max-model-len = "long"', "--max-model-len must be a whole number", "correct it"),
    ],
)
def test_a_broken_configuration_is_a_failed_check_and_the_others_run(
    call: Call, user_file: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: str, fix: str
) -> None:
    only(monkeypatch, "python", "configuration")
    user_file.write_text(text)
    code, out, err = call("doctor", "--json")
    python, configuration = json.loads(out)["checks"]
    assert (code, err, python["status"], configuration["status"]) == (3, "", "pass", "fail")
    assert found in configuration["found"]
    assert fix in configuration["fix"]


def test_a_configuration_without_a_fault_counts_as_for_every_command(
    call: Call, user_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "configuration", "plan")
    user_file.write_text('device = "cpu"\n[models.tiny-chat]\nmax-model-len = 64\n')
    code, out, _ = call("doctor", "tiny-chat", "--json")
    configuration, plan = json.loads(out)["checks"]
    assert (code, configuration["found"]) == (0, str(user_file))
    assert "context: 64 (option)" in plan["details"]
