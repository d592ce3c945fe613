"""`llmcli doctor`: what works here, what does not, and what to type about it. The checks are in `jobs/doctor/`."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmcli import __version__
from llmcli.cli.command import FileTrouble
from llmcli.cli.completion import complete_model
from llmcli.cli.layers import places
from llmcli.cli.options import EngineOptions, Json, ModelOptions, Quiet
from llmcli.errors import ItemsFailedError, UsageError, quote

if TYPE_CHECKING:
    from llmcli.jobs.doctor.check import Check, Result
    from llmcli.jobs.doctor.storage import ConfigFiles
    from llmcli.jobs.doctor.terminal import TerminalFacts

STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
MAX_LINE = 2000
GAP = "  "
NARROW = 60  # columns


def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            autocompletion=complete_model,
            help="Also look at this model: owner/name, owner/name@revision, a folder, or tiny-chat.",
        ),
    ] = None,
    *,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Load the model and let it generate a few tokens.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Print a block to paste into a bug report, without secrets.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show the details of what is fine, too.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    options: ModelOptions,
    engine: EngineOptions,
    files: FileTrouble,
) -> None:
    """Check what works here, and tell how to mend the rest.

    This machine, the way to the hub and, if one is named, a model.

    Each check passes, warns or fails; the exit code is 3 if one fails, else 0. Nothing is changed, and no weights are
    fetched: of a model on the hub the settings and headers tell. The options of the engine are those of chat, run and
    bench: they show what would fit with them.

    Examples:
        llmcli doctor
        llmcli doctor TheBloke/Llama-2-7b-Chat-AWQ --max-model-len 16k
        llmcli doctor ./my-model --smoke
        llmcli doctor --report
    """
    if smoke and model is None:
        raise UsageError("--smoke needs a model", fix="llmcli doctor tiny-chat --smoke")
    if as_json and report:
        raise UsageError("--json and --report exclude each other", fix="give one of them")
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other", fix="give one of them")

    from llmcli.jobs.doctor.checklist import Checklist, Question

    question = Question(
        environment=dict(os.environ),
        terminal=_terminal(),
        offline=options.offline,
        model=model,
        revision=options.revision,
        config=engine.config(),
        smoke=smoke,
        config_files=_config_files(files.error),
    )
    checks = Checklist(question).checks()
    if as_json or report:
        results = list(_run(checks))
        typer.echo(_as_json(results) if as_json else _as_report(results, model))
    else:
        results = _run_and_show(checks, verbose=verbose, quiet=quiet)
    if any(result.finding.status == "fail" for result in results):
        raise typer.Exit(ItemsFailedError.exit_code)


def _run_and_show(checks: Sequence["Check"], *, verbose: bool, quiet: bool) -> list["Result"]:
    """Run them all, and tell of each as soon as it is done."""
    from llmcli.jobs.doctor.report import summary

    width = max(len(check.name) for check in checks)
    results = []
    for result in _run(checks):
        results.append(result)
        if not quiet or result.finding.status in ("warn", "fail"):
            _show(result, width, verbose=verbose)
    if not quiet:
        typer.echo(f"\n{summary(results)}")
    return results


def _run(checks: Sequence["Check"]) -> Iterator["Result"]:
    from llmcli.jobs.doctor.check import run_check

    for check in checks:
        with _working_on(check.name):
            result = run_check(check)
        yield result


@contextmanager
def _working_on(name: str) -> Iterator[None]:
    """On a terminal tell what is being looked at."""
    from llmcli.ui.console import stderr_console

    console = stderr_console()
    if not console.is_terminal or console.is_dumb_terminal:
        yield
        return
    with console.status(f"checking {name} ..."):
        yield


def _show(result: "Result", width: int, *, verbose: bool) -> None:
    """One check: its status, what was found, the fix below it. In columns; plain and unwrapped where nobody reads."""
    from llmcli.jobs.doctor.report import shorten_home

    finding = result.finding
    rows = [(finding.found, "dim" if finding.status == "skip" else "")]
    if finding.status in ("warn", "fail") or verbose:
        rows += [(detail, "dim") for detail in finding.details]
    if finding.fix:
        rows.append((f"fix: {finding.fix}", "cyan"))
    lines = [(shorten_home(quote(text, MAX_LINE), Path.home()), style) for text, style in rows]
    status = finding.status.upper()
    if sys.stdout.isatty():
        _show_on_terminal(status, STYLES[finding.status], result.name, width, lines)
        return
    head = f"{status}{GAP}{result.name:<{width}}{GAP}"
    for number, (text, _) in enumerate(lines):
        typer.echo((" " * len(head) if number else head) + text)


def _show_on_terminal(status: str, style: str, name: str, width: int, lines: list[tuple[str, str]]) -> None:
    """Three columns; in a narrow window two, with the name on a line of its own."""
    from rich.table import Table
    from rich.text import Text

    from llmcli.ui.console import stdout_console

    console = stdout_console()
    narrow = console.width < NARROW
    table = Table.grid(padding=(0, len(GAP)))
    table.add_column(width=len(status))
    if not narrow:
        table.add_column(width=width)
    table.add_column(overflow="fold")
    cells = [Text(text, style=of_line) for text, of_line in lines]
    if narrow:
        cells.insert(0, Text(name, style="bold"))
    for number, cell in enumerate(cells):
        first = Text(status, style=style) if number == 0 else ""
        if narrow:
            table.add_row(first, cell)
        else:
            table.add_row(first, name if number == 0 else "", cell)
    console.print(table)


def _terminal() -> "TerminalFacts":
    from llmcli.jobs.doctor.terminal import TerminalFacts

    streams = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr}
    size = shutil.get_terminal_size()
    return TerminalFacts(
        on_terminal=tuple(name for name, stream in streams.items() if stream.isatty()),
        columns=size.columns,
        rows=size.lines,
        encoding=sys.stdout.encoding or "",
        environment=os.environ,
    )


def _config_files(error: Exception | None) -> "ConfigFiles":
    from llmcli.jobs.doctor.storage import ConfigFiles

    return ConfigFiles(() if error else places(), error)


def _as_json(results: Sequence["Result"]) -> str:
    from llmcli.jobs.doctor.report import as_json

    return json.dumps(as_json(results, __version__), indent=2)


def _as_report(results: Sequence["Result"], model: str | None) -> str:
    """The block, with what was asked and what it was asked of."""
    import platformdirs

    from llmcli.jobs.doctor.report import as_report

    heading = [
        f"llmcli {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"model: {quote(model)}" if model else "no model named",
    ]
    log = Path(platformdirs.user_log_dir("llmcli", appauthor=False)) / "error.log"
    if log.is_file():
        heading.append(f"the last unexpected failure is in {log}; read it before you share it")
    return as_report(results, heading, os.environ, Path.home())
