"""Calls in another process: results, errors, crashes and silence."""

import os
import signal
import sys
import time
from typing import Any

import pytest

from llmcli.errors import DoesNotFitError, LLMCliError
from llmcli.jobs.doctor.child import call_apart

LIMIT_S = 60.0


def echo(**values: Any) -> dict[str, Any]:
    print("noise on stdout")
    os.write(1, b"noise from compiled code\n")
    return values | {"pid": os.getpid()}


def refuse() -> None:
    raise DoesNotFitError("it does not fit", why="it is too large", fix="buy memory")


def crash() -> None:
    raise ValueError("boom")


def die(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(30)


def leave() -> None:
    os._exit(7)


def hang() -> None:
    time.sleep(60)


def paths() -> list[str]:
    return sys.path


def test_arguments_and_result_go_through_and_noise_does_not() -> None:
    result = call_apart(echo, limit_s=LIMIT_S, text="ä\n", numbers=[1, 2.5, None])
    assert result.pop("pid") != os.getpid()
    assert result == {"text": "ä\n", "numbers": [1, 2.5, None]}


def test_one_of_our_errors_keeps_its_three_parts() -> None:
    with pytest.raises(LLMCliError) as caught:
        call_apart(refuse, limit_s=LIMIT_S)
    assert (caught.value.what, caught.value.why, caught.value.fix) == (
        "it does not fit",
        "it is too large",
        "buy memory",
    )


def test_any_other_exception_is_told_by_its_last_line() -> None:
    with pytest.raises(LLMCliError, match=r"^ValueError: boom$"):
        call_apart(crash, limit_s=LIMIT_S)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "SIGKILL, most often the system, because memory ran out"),
        (signal.SIGILL, "SIGILL, an instr"),
    ],
)
def test_a_process_that_dies_of_a_signal_is_told_by_its_name(number: int, words: str) -> None:
    with pytest.raises(LLMCliError, match=f"the process died of {words}"):
        call_apart(die, limit_s=LIMIT_S, number=int(number))


def test_a_process_that_leaves_without_a_word_is_told_by_its_code() -> None:
    with pytest.raises(LLMCliError, match="exit code 7"):
        call_apart(leave, limit_s=LIMIT_S)


def test_a_process_that_takes_too_long_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(LLMCliError, match=r"no answer within 0\.2 s"):
        call_apart(hang, limit_s=0.2)
    assert time.monotonic() - started < 30


def test_modules_of_the_folder_that_the_user_is_in_are_not_imported(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    (tmp_path / "json.py").write_text("raise SystemExit('a stranger')")
    assert str(tmp_path) not in call_apart(paths, limit_s=LIMIT_S)
