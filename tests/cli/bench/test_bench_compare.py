"""`llmcli bench compare`: what it prints, when it fails, what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmcli.cli.app import run_command_line
from llmcli.jobs.bench.result import Header, Row, document

FAST, SLOW = (100.0, 101.0, 99.0), (80.0, 81.0, 79.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, samples: tuple[float, ...], kind: str = "quick", **environment: object) -> str:
    header = Header(kind=kind, plan={}, environment={"model": "m", "dtype": "float32"} | environment)
    rows = [
        Row(test="pp512", batch=1, unit="tok/s", samples=FAST),
        Row(test="tg128", batch=8, unit="tok/s", samples=samples),
    ]
    Path(name).write_text(json.dumps(document(header, rows, finished=True)))
    return name


def compare(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert run_command_line(["bench", "compare", *arguments]) == code
    out, err = capsys.readouterr()
    return out, err


def test_each_test_is_shown_with_ratio_interval_and_verdict(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = compare(capsys, write("a.json", SLOW), write("b.json", FAST, llmcli="2"))
    pp, tg = (line for line in out.splitlines() if line.startswith(("pp512", "tg128")))
    assert "within the noise" in pp
    assert tg.split()[:7] == ["tg128", "8", "80.00", "tok/s", "100.00", "tok/s", "1.250"]
    assert "faster" in tg
    assert "differs: llmcli: none and 2" in out
    assert "Welch" in out
    assert err == ""


def test_no_difference_is_said_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = compare(capsys, write("a.json", FAST), write("b.json", FAST))
    assert "no difference: 2 within the noise" in out


def test_json_has_the_ratio_and_its_interval(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = compare(capsys, write("a.json", SLOW), write("b.json", FAST), "--json")
    found = json.loads(out)
    pp, tg = found["tests"]
    assert (pp["verdict"], tg["verdict"]) == ("within the noise", "faster")
    assert tg["low"] < tg["speed"] < tg["high"]
    assert tg["speed"] == pytest.approx(1.25, rel=1e-3)
    assert (tg["runs_before"], tg["before"]) == (3, pytest.approx((80 * 81 * 79) ** (1 / 3)))


@pytest.mark.parametrize(
    ("samples", "share", "code"),
    [(SLOW, "5%", 3), (SLOW, "0.3", 0), (FAST, "0%", 0)],
)
def test_a_slower_test_fails_with_exit_code_3(
    samples: tuple[float, ...], share: str, code: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write("a.json", FAST), write("b.json", samples)
    out, err = compare(capsys, *files, "--fail-if-slower", share, code=code)
    assert "tg128" in out
    assert ("1 of 2 tests are slower by more than 5.0%" in err) is (code == 3)


def test_another_dtype_is_refused_without_force(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write("a.json", FAST), write("b.json", FAST, dtype="bfloat16")
    out, err = compare(capsys, *files, code=2)
    assert out == ""
    assert "a.json and b.json differ in dtype" in err
    assert "--force dtype" in err
    out, _ = compare(capsys, *files, "--force", "dtype")
    assert "differs: dtype: float32 and bfloat16" in out


def test_markdown_is_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = compare(capsys, write("a.json", SLOW), write("b.json", FAST), "-o", "md")
    assert {line[0] + line[-1] for line in out.splitlines()} == {"||"}
    assert len(out.splitlines()) == 4


def test_serving_results_warn_of_their_intervals(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = compare(capsys, write("a.json", FAST, "serve"), write("b.json", FAST, "serve"))
    assert "intervals of serve are too narrow" in out


def test_a_picture_is_drawn_where_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    compare(capsys, write("a.json", SLOW), write("b.json", FAST), "--plot", "out.png")
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.json", "none.json"], "can not read none.json"),
        (["a.json", "text.json"], "text.json is no result of llmcli bench"),
        (["a.json", "a.json", "--fail-if-slower", "5"], "must be a share such as 5%"),
        (["a.json", "a.json", "--force", "all"], "--force takes model, dtype, machine, got all"),
        (["a.json", "a.json", "--plot", "x.jpg"], "--plot must name a .png file"),
        (["a.json"], "Missing argument"),
    ],
)
def test_what_can_not_be_compared_is_a_usage_error(
    arguments: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a.json", FAST)
    Path("text.json").write_text("hello")
    out, err = compare(capsys, *arguments, code=2)
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_comparing_loads_nothing_heavy(folder: Path, program_env: dict[str, str]) -> None:
    files = [str(folder / write("a.json", SLOW)), str(folder / write("b.json", FAST))]
    code = (
        "import sys\nfrom llmcli.cli.app import run_command_line\n"
        f"assert run_command_line(['bench', 'compare', *{files!r}, '--json']) == 0\n"
        "print([name for name in ('torch', 'numpy', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=program_env, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
