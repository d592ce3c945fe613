"""From rows to what the user gets: the file as they come, the table at the end, and how a stopped run ends.

Knows no benchmark: every form of `llmcli bench` makes a `Report`, puts rows into it and closes it.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from llmcli.cli.bench.options import ResultOptions
from llmcli.cli.bench.table import model_columns, print_csv, print_markdown, write_line
from llmcli.cli.listing import Column, print_table
from llmcli.config import human_bytes
from llmcli.errors import OutputError, quote
from llmcli.jobs.bench.result import Header, ResultFile, Row, document, dumps, line

Footer = Callable[[Mapping[str, Any]], Sequence[str]]
Shown = Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]]


class Report:
    """The result of one run, as it grows.

    Args:
        kind: of the benchmark, for the result.
        plan: what was asked for, ready for JSON.
        columns: what people see of a row.
        included: what the times hold, in words.
        shown: the rows that people see, from the whole result; else all of it.
        footer: lines below the table, from the whole result.

    Raises:
        UsageError: the file of --save can not be written, or would be lost.
    """

    def __init__(
        self,
        kind: str,
        plan: Mapping[str, Any],
        options: ResultOptions,
        columns: Sequence[Column],
        *,
        included: str = "",
        shown: Shown = lambda result: result["tests"],
        footer: Footer = lambda result: (),
    ) -> None:
        self.form = options.form
        self._header = Header(kind=kind, plan=plan, environment={})
        self._quiet = options.quiet
        self._columns = columns
        self._included = included
        self._shown = shown
        self._footer = footer
        self._file = None if options.save is None else ResultFile(options.save, overwrite=options.overwrite)
        self._failure: OutputError | None = None
        self._rows: dict[tuple[str, int | None], Row] = {}
        self._in_lines: set[tuple[str, int | None]] = set()
        self._status = StatusLine()

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())

    def begin(self, environment: Mapping[str, Any]) -> None:
        """What it is measured on is known; before the first row."""
        self._header = Header(kind=self._header.kind, plan=self._header.plan, environment=environment)

    def notice(self, text: str) -> None:
        """A line on stderr, unless --quiet."""
        if not self._quiet:
            self._status.clear()
            warn(text)

    def progress(self, text: str) -> None:
        """What runs now, on stderr, unless --quiet: one line that changes on a terminal, else a line each time."""
        if not self._quiet:
            self._status.show(text)

    def put(self, row: Row, *, final: bool = True) -> None:
        """A row, or one that has more runs now; `final` when no more will come."""
        self.put_all([row], final=final)

    def put_all(self, rows: Sequence[Row], *, final: bool = True) -> None:
        """Several rows, with one writing of the file."""
        self._rows |= {row.key: row for row in rows}
        if final:
            self._write_lines(rows)
        if self._file is not None and not self._file.in_lines and not self._file.is_device:
            self._keep(lambda file: file.replace(self._result(finished=False), sync=False))

    def _write_lines(self, rows: Sequence[Row]) -> None:
        """Put rows to which nothing will come any more where rows are written one by one."""
        self._in_lines |= {row.key for row in rows}
        for row in rows:
            if self._file is not None and self._file.in_lines:
                self._keep(lambda file, row=row: file.append(self._header, row))  # type: ignore[misc]
            if self.form == "jsonl":  # after the file: what was printed is kept
                self._status.clear()
                print(line(self._header, row), flush=True)

    def amend(self, row: Row) -> None:
        """Say more of a row that is final; the document at the end has it."""
        self._rows[row.key] = row

    def close(self, *, finished: bool = True, summary: Mapping[str, Any] | None = None) -> None:
        """Print everything, and put the whole into the file.

        Raises:
            OutputError: the file could not be written; the result has been printed.
            KeyboardInterrupt: it is not finished.
        """
        result = self._result(finished=finished, summary=summary)
        self._write_lines([row for key, row in self._rows.items() if key not in self._in_lines])
        if self._rows or summary:
            self._print(result)
            sys.stdout.flush()
        if self._file is not None and (self._rows or summary) and not self._file.in_lines:
            self._failure = None
            self._keep(lambda file: file.replace(result))
        if self._failure is not None:
            raise self._failure
        if self._file is not None and self._rows:
            self.notice(f"kept in {quote(str(self._file.path), 1000)}")
        if not finished:
            raise KeyboardInterrupt

    @contextmanager
    def stoppable(self, summary: Callable[[], Mapping[str, Any]] = dict) -> Iterator[None]:
        """Ctrl-C inside ends the run with what there is: printed, kept, exit code 130.

        Args:
            summary: makes that of a run that is stopped.
        """
        try:
            yield
        except KeyboardInterrupt:
            self._status.clear()
            if not self._rows:
                raise
            warn("stopped: this is what was measured so far")
            self.close(finished=False, summary=summary())
        finally:
            self._status.clear()

    def _result(self, *, finished: bool, summary: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return document(self._header, self.rows, finished=finished, summary=summary)

    def _keep(self, write: Callable[[ResultFile], None]) -> None:
        """Write; a full disk does not end the measuring, it is told now and raised at the end."""
        assert self._file is not None
        try:
            write(self._file)
        except OutputError as error:
            if self._failure is None:
                self._status.clear()
                warn(f"{error.what}; measuring goes on")
            self._failure = error

    def _print(self, result: Mapping[str, Any]) -> None:
        if self.form == "json":
            print(dumps(result))
        elif self.form == "csv":
            print_csv(result)
        elif self.form == "md":
            print_markdown([*model_columns(result["environment"]), *self._columns], self._shown(result))
        elif self.form == "human":
            self._print_for_people(result)

    def _print_for_people(self, result: Mapping[str, Any]) -> None:
        from llmcli.ui.console import stdout_console

        console = stdout_console()
        for text in head_lines(result["environment"]):
            write_line(console, text)
        if self._included:
            write_line(console, self._included)
        print_table(self._shown(result), self._columns)
        for text in self._footer(result):
            write_line(console, text)


def head_lines(environment: Mapping[str, Any]) -> list[str]:
    """Model and machine, in two lines."""
    parts = [
        environment.get("architecture"),
        environment.get("quantization") or ("dense" if environment.get("architecture") else None),
        environment.get("dtype"),
    ]
    if environment.get("weight_bytes"):
        parts.append(f"{human_bytes(environment['weight_bytes'])} of weights")
    described = ", ".join(filter(None, parts))
    model = quote(str(environment.get("model") or ""))
    if environment.get("server"):
        model = f"{model} at {quote(str(environment['server']))}"
    first = [f"{model}: {described}" if described else model]
    return [text for text in (*first, machine_line(environment)) if text]


def machine_line(environment: Mapping[str, Any]) -> str:
    """What it ran on."""
    gpu = environment.get("gpu")
    if gpu:
        driver = f", driver {gpu['driver']}" if gpu["driver"] else ""
        return (
            f"{gpu['name']}{driver}, CUDA {gpu['cuda']}, Triton {gpu['triton']}, torch {environment['torch']}"
        )
    threads = environment.get("threads")
    used = "" if threads is None else f", {threads} thread{'s' * (threads != 1)}"
    load = environment.get("load")
    busy = f"; the machine was busy before (load {load:g})" if load and load > 0.5 else ""
    return f"{environment.get('cpu')}{used}, torch {environment.get('torch')}{busy}"


class StatusLine:
    """The last line of the terminal on stderr, rewritten in place. No thread: nothing runs beside what is timed."""

    def __init__(self) -> None:
        from llmcli.ui.console import stderr_console

        self._console = stderr_console()
        self._in_place = self._console.is_terminal and not self._console.is_dumb_terminal
        self._shown = False

    def show(self, text: str) -> None:
        """Replace the line; where it can not be replaced, print one more."""
        if not self._in_place:
            warn(text)
            return
        self._shown = True
        self._write(f"\r\x1b[2K{quote(text, max(1, self._console.width - 1))}")

    def clear(self) -> None:
        """Leave the line empty for what is printed next."""
        if self._shown:
            self._shown = False
            self._write("\r\x1b[2K")

    def _write(self, text: str) -> None:
        self._console.file.write(text)
        self._console.file.flush()


def warn(text: str) -> None:
    """A line on stderr."""
    from llmcli.ui.console import stderr_console
    from llmcli.ui.notes import Notes

    Notes(stderr_console()).say(text)
