"""How an error is told on stderr: what happened, why, what to type; and where the traceback of a bug is kept.

Knows the error tree and Typer's public exception; `cli/app.py` calls it and exits with the code it returns.
"""

import errno
import os
import platform
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import typer

from llmcli import __version__
from llmcli.cli.command import told_origin
from llmcli.errors import LLMCliError, quote
from llmcli.nearest import nearest

MAX_LINE = 2000
FAILED, USAGE, INTERRUPTED, BROKEN_PIPE, TERMINATED = 1, 2, 130, 141, 143
# What a write says when there is no room left for it.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def report_error(error: LLMCliError) -> int:
    """Print an error of ours."""
    _print_lines(error.what, error.why, error.fix)
    return error.exit_code


def report_usage(error: typer.TyperException) -> int:
    """Print what Typer found wrong in the command line, with the nearest name."""
    what = error.format_message().replace("Value error, ", "")  # Typer passes pydantic's wording on
    ctx, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    near: list[str] = list(getattr(error, "possibilities", None) or [])
    if near:
        option = str(getattr(error, "option_name", ""))
        near = nearest(option, near) or near[:1]
        what = f"no such option: {quote(option)}"
    if ctx is None:
        _print_lines(what, "", "")
    else:
        hint = f"did you mean {near[0]}? " if near else ""
        why = "" if parameter is None else told_origin(ctx, parameter)
        _print_lines(what, why, f"{hint}see {ctx.command_path} --help")
    return USAGE if error.exit_code == FAILED else error.exit_code


def report_disk_full(error: OSError) -> int:
    """Print that a result could not be written for want of room."""
    where = quote(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else "the output"
    _print_lines(f"{where} can not be written: {error.strerror}", "", "make room, or write it elsewhere")
    return FAILED


def report_unexpected(error: Exception, *, debug: bool) -> int:
    """Print one line for an error that nobody expected, and keep or (with --debug) print its traceback."""
    text = "".join(traceback.format_exception(error))
    what = f"unexpected {type(error).__name__}: {quote(str(error))}"
    why = _cause(error)
    if debug:
        sys.stderr.write(_clean(text) + "\n")
        _print_lines(what, why, "")
        return FAILED
    try:
        path = _write_log(text)
    except OSError:
        sys.stderr.write(_clean(text) + "\n")
        _print_lines(what, f"{why}; the traceback is above", "")
    else:
        _print_lines(what, f"{why}; the traceback is in {path}", "add --debug to see it here")
    return FAILED


def _cause(error: Exception) -> str:
    if isinstance(error, OSError):
        return "the operating system refused this"
    return "there is no memory left" if isinstance(error, MemoryError) else "this is a bug in llmcli"


def _write_log(text: str) -> Path:
    """Replace the log of the last unexpected error; it may quote a prompt, so nobody else may read it."""
    import platformdirs

    folder = Path(platformdirs.user_log_dir("llmcli", appauthor=False))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "error.log"
    path.unlink(missing_ok=True)
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", errors="backslashreplace"
    ) as file:
        file.write(f"llmcli {__version__}, Python {platform.python_version()}, {platform.platform()}\n{text}")
    return path


def _print_lines(what: str, why: str, fix: str) -> None:
    """Print an error on stderr, coloured on a terminal; nothing in it is read as markup."""
    from rich.text import Text

    from llmcli.ui.console import stderr_console

    text = Text("error: ", style="bold red")
    text.append(_clean(what), style="default not bold")
    for line, style in ((why, "default not bold"), (fix, "not bold cyan")):
        if line:
            text.append("\n" + _clean(line, indent="  "), style=style)
    with suppress(OSError):  # nobody can be told that stderr is full or gone; the exit code still tells
        stderr_console().print(text, soft_wrap=True)


def _clean(text: str, indent: str = "") -> str:
    return "\n".join(indent + quote(line, MAX_LINE) for line in text.split("\n"))
