"""Running a check gives a finding, whatever happens inside of it."""

import threading
import time

import pytest

from llmcli.errors import CheckpointError
from llmcli.jobs.doctor.check import Check, Finding, Once, passed, run_check


def finding_of(run, limit_s: float = 30.0) -> Finding:
    return run_check(Check("probe", run, limit_s)).finding


def test_what_a_check_finds_is_its_result() -> None:
    result = run_check(Check("probe", lambda: passed("all well", "a detail")))
    assert (result.name, result.finding) == ("probe", Finding("pass", "all well", "", ("a detail",)))


def test_a_check_that_raises_one_of_our_errors_has_failed_with_its_text() -> None:
    def run() -> Finding:
        raise CheckpointError("a file is cut", why="it has 3 bytes\nof 5", fix="fetch it\nagain")

    assert finding_of(run) == Finding("fail", "a file is cut", "fetch it again", ("it has 3 bytes", "of 5"))


def test_a_check_that_crashes_has_failed_and_shows_no_traceback() -> None:
    def run() -> Finding:
        raise ZeroDivisionError("boom\x1b[2J")

    finding = finding_of(run)
    assert finding.status == "fail"
    assert finding.found == "the check itself failed: ZeroDivisionError: boom\\x1b[2J"
    assert "--report" in finding.fix


def test_a_crash_without_a_message_is_told_by_its_kind() -> None:
    def run() -> Finding:
        raise RuntimeError

    assert finding_of(run).found == "the check itself failed: RuntimeError"


def test_a_check_that_does_not_come_back_has_failed_after_its_limit() -> None:
    never = threading.Event()
    started = time.monotonic()
    finding = finding_of(lambda: passed(str(never.wait())), limit_s=0.05)
    assert (finding.status, finding.found) == ("fail", "no answer within 0.05 s")
    assert time.monotonic() - started < 20
    never.set()


def test_a_shared_value_is_read_once() -> None:
    reads = []
    value = Once(lambda: reads.append(1) or len(reads))
    assert (value(), value(), reads) == (1, 1, [1])


def test_an_error_of_a_shared_value_is_kept_and_raised_each_time() -> None:
    reads = []

    def read() -> int:
        reads.append(1)
        raise CheckpointError("no")

    value = Once(read)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="no"):
            value()
    assert reads == [1]
