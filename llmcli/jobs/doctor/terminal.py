"""The terminal: whether there is one, its width, colours and encoding."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass

from llmcli.errors import quote
from llmcli.jobs.doctor.check import Finding, passed, warned

NARROW = 40  # columns; tables and chat still work there
DUMB = ("", "dumb", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalFacts:
    """What the standard streams are.

    Attributes:
        on_terminal: names of the streams that are terminals, of "stdin", "stdout", "stderr".
        columns, rows: of the window.
        encoding: of stdout.
        environment: of the process.
    """

    on_terminal: tuple[str, ...]
    columns: int
    rows: int
    encoding: str
    environment: Mapping[str, str]


def check_terminal(facts: TerminalFacts) -> Finding:
    """Text of all languages can be shown, and a chat has what it needs."""
    env = facts.environment
    term = env.get("TERM", "")
    names = ("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LANG", "LC_ALL", "PYTHONIOENCODING")
    details = [f"{name}={quote(env[name], 60)}" for name in names if name in env]
    where = (
        f"{facts.columns} x {facts.rows}, {_colours(env)}" if "stdout" in facts.on_terminal else "no terminal"
    )
    found = f"{where}, {facts.encoding}"
    if not _is_utf8(facts.encoding):
        return warned(
            f"{found}: other characters are shown as codes", "export LANG=C.UTF-8, or PYTHONUTF8=1", *details
        )
    if "stdout" not in facts.on_terminal:
        return passed(f"{found}: plain text", *details)
    if term in DUMB:
        return warned(
            f"{found}; TERM is {quote(term, 20) or 'not set'}: chat has no line editing",
            "export TERM=xterm-256color, if the terminal can do more",
            *details,
        )
    if facts.columns < NARROW:
        return warned(
            f"{found}: tables are hard to read", "make the window wider, or unset COLUMNS", *details
        )
    missing = [name for name in ("stdin", "stdout", "stderr") if name not in facts.on_terminal]
    return passed(found + (f"; {', '.join(missing)}: not a terminal" if missing else ""), *details)


def _colours(env: Mapping[str, str]) -> str:
    if env.get("NO_COLOR"):
        return "no colours (NO_COLOR)"
    if env.get("TERM", "") in DUMB:
        return "no colours"
    if env.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return "16 million colours"
    return "256 colours" if "256" in env.get("TERM", "") else "16 colours"


def _is_utf8(encoding: str) -> bool:
    try:
        return codecs.lookup(encoding).name == "utf-8"
    except LookupError:
        return False
