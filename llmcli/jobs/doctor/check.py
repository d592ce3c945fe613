"""A check: what it looks at, how long it may take, and what it found.

Whatever happens inside of a check, running it gives a finding: one that raises, or that does not come back, has
failed. Knows no particular check.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from llmcli.errors import LLMCliError, quote

Status = Literal["pass", "warn", "fail", "skip"]
T = TypeVar("T")

LIMIT_S = 15.0  # for what reads files and asks the system
MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        status: "pass"; "warn": works, but worse than it could; "fail": something does not work; "skip": not looked at.
        found: one line, with the values.
        fix: what to type or change; empty where nothing is wrong.
        details: more lines, for people who want to know.
    """

    status: Status
    found: str
    fix: str = ""
    details: tuple[str, ...] = ()


def passed(found: str, *details: str) -> Finding:
    """Nothing is wrong."""
    return Finding("pass", found, details=details)


def warned(found: str, fix: str, *details: str) -> Finding:
    """It works, but worse than it could, or not for long."""
    return Finding("warn", found, fix, details)


def failed(found: str, fix: str, *details: str) -> Finding:
    """Something that people need does not work."""
    return Finding("fail", found, fix, details)


def skipped(why: str) -> Finding:
    """It was not looked at; `why` completes "not checked: "."""
    return Finding("skip", f"not checked: {why}")


def failed_by(error: LLMCliError) -> Finding:
    """The finding of a check that met an error of ours."""
    return failed(error.what, error.fix.replace("\n", " "), *(line for line in error.why.split("\n") if line))


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at.

    Attributes:
        name: stable, for programs; people see it too.
        run: looks; may raise anything.
        limit_s: seconds after which it counts as failed.
    """

    name: str
    run: Callable[[], Finding]
    limit_s: float = LIMIT_S


@dataclass(frozen=True, slots=True)
class Result:
    """A check that was run, and the seconds that it took."""

    name: str
    finding: Finding
    seconds: float


class Once(Generic[T]):
    """A value that several checks need: read when it is first asked for, and an error is kept as well."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._value: T | None = None
        self._error: Exception | None = None
        self._done = False

    def __call__(self) -> T:
        """The value.

        Raises:
            Exception: what reading it raised, each time.
        """
        if not self._done:
            try:
                self._value = self._read()
            except Exception as error:
                self._error = error
            self._done = True
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set where there is no error


def run_check(check: Check) -> Result:
    """Run a check in a thread of its own, which is left behind when it takes too long."""
    started = time.monotonic()
    findings: list[Finding] = []
    thread = threading.Thread(
        target=lambda: findings.append(_found(check)), name=f"doctor-{check.name}", daemon=True
    )
    thread.start()
    thread.join(check.limit_s)
    late = failed(
        f"no answer within {check.limit_s:g} s",
        "see whether a disk, the network or a driver hangs; the other checks go on",
    )
    return Result(check.name, findings[0] if findings else late, time.monotonic() - started)


def _found(check: Check) -> Finding:
    try:
        return check.run()
    except LLMCliError as error:
        return failed_by(error)
    except Exception as error:  # a check must not end the others
        what = ": ".join(filter(None, (type(error).__name__, quote(str(error), MAX_TEXT))))
        return failed(
            f"the check itself failed: {what}",
            "if nothing above explains it, it is a bug: add what llmcli doctor --report prints to a bug report",
        )
