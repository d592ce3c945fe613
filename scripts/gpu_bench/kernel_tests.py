"""One file of the project's kernel tests, run on this GPU: every test of the Triton set is a case.

Owns how pytest is called and how its reports become rows. A test that breaks the GPU's context ends the process,
and the tests behind it run in a new one.
"""

import importlib.util
from pathlib import Path
from typing import Any

from scripts.gpu_bench.session import Row, Session

ROOT = Path(__file__).parents[2]
NEEDED = ("pytest", "hypothesis")
CONFTEST = "tests/conftest.py"  # prepares the process for these tests, which nobody else may do then


def run(session: Session, file: str, which: str) -> None:
    """Run those tests of a file whose names fit pytest's -k expression `which`."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        why = f"{' and '.join(missing)} missing: pip install {' '.join(NEEDED)}"
        session.case(file, lambda: {"kind": "skipped", "why": why})
        return
    import pytest

    # A foreign pytest may not know our settings, and may warn of what ours does not: both do not matter here.
    options = ["--override-ini=addopts=", "--override-ini=filterwarnings=", "--import-mode=importlib"]
    options += ["-k", which, "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", str(ROOT / file)]
    cases = TestCases(session)
    code = pytest.main(options, plugins=[cases])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.case(file, lambda: {"kind": "failure", "error": f"pytest ended with {code!r}"})


class TestCases:
    """A pytest plugin that makes a case of each test."""

    __test__ = False

    def __init__(self, session: Session) -> None:
        self._session = session

    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> bool:
        """Run a test as a case; True tells pytest that it is done."""
        from _pytest.runner import runtestprotocol

        reports: list[Any] = []

        def work() -> Row:
            reports.extend(runtestprotocol(item, nextitem=nextitem, log=False))
            return _row(reports)

        self._session.case(item.nodeid, work)
        return True


def _row(reports: list[Any]) -> Row:
    """Set-up, call and tear-down of a test as one row."""
    for report in reports:
        if report.failed:
            text = str(report.longrepr)
            return {"kind": "failure", "error": _reason(text), "traceback": text.splitlines()[-30:]}
    for report in reports:
        if report.skipped:
            return {"kind": "skipped", "why": str(report.longrepr[-1])}
    return {"kind": "check", "correct": True}


def _reason(text: str) -> str:
    """The lines of a traceback that pytest marks as the error."""
    marked = [line[1:].strip() for line in text.splitlines() if line.startswith("E")]
    return "\n".join(marked)[:2000] or text[-500:]
