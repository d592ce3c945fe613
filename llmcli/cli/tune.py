"""`llmcli tune`: find the fastest tile sizes of the kernels for this GPU, and keep them for later runs."""

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from llmcli.cli.options import Json, Quiet, Revision
from llmcli.errors import DeviceUnavailableError, ModelNotFoundError, quote
from llmcli.gpu_facts import GpuFacts, NoGpu

if TYPE_CHECKING:
    from llmcli.model.spec import ModelSpec
    from llmcli.runtime.tuning import TunedCase, Tuning


def tune(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="A model that is here, for its shapes; else those of widely used models.",
        ),
    ] = None,
    *,
    revision: Revision = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the fastest kernel tiles for this GPU.

    They are kept for later runs. Every candidate is checked against the reference before it is timed. Ctrl-C keeps what
    was found so far. Takes minutes; nothing is ever tuned without being asked.

    Examples:

        llmcli tune

        llmcli tune TheBloke/Llama-2-7b-Chat-AWQ
    """
    spec = None if model is None else _read_spec(model, revision)
    gpu = _gpu()
    from llmcli.runtime.tuning_file import user_tuning_file

    file = user_tuning_file(gpu.name)
    tuning = _start(gpu, file, spec)
    if not quiet:
        _say(f"tuning {len(tuning.cases)} cases on {gpu.describe()}; Ctrl-C keeps what was found")
    done, finished = _run(tuning, quiet)
    if as_json:
        print(json.dumps(_as_json(gpu, file, done, finished)), flush=True)
    else:
        _print_table(done)
        if file.exists():
            _say(f"kept in {quote(str(file), 1000)}")
    _warn_of_wrong_results(done)
    if not finished:
        raise KeyboardInterrupt


def _read_spec(model: str, revision: str | None) -> "ModelSpec":
    from llmcli.hub.models import find_local
    from llmcli.model.spec import read_model_spec

    local = find_local(model, revision=revision)
    if local is None:
        raise ModelNotFoundError(
            f"{quote(model)} is not on this machine, or not complete",
            fix=f"run `llmcli pull {quote(model)}` first",
        )
    return read_model_spec(local.path)


def _gpu() -> GpuFacts:
    from llmcli.runtime.gpu import find_gpu

    found = find_gpu()
    if isinstance(found, NoGpu):
        raise DeviceUnavailableError(
            f"there is no GPU to tune for: {found.reason}",
            fix=found.fix or "the kernels of the CPU need no tuning",
        )
    return found


def _start(gpu: GpuFacts, file: Path, spec: "ModelSpec | None") -> "Tuning":
    from llmcli.runtime.tuning import Tuning, cases_of

    return Tuning(gpu, file, cases_of(spec), on_warning=_say)


def _run(tuning: "Tuning", quiet: bool) -> tuple[list["TunedCase"], bool]:
    """What was found, and whether all cases were tuned."""
    done: list[TunedCase] = []
    with _Display(len(tuning.cases), quiet) as display:
        try:
            for case in tuning.run(display.show_case, display.count_config):
                done.append(case)
        except KeyboardInterrupt:
            if not done:
                raise
            return done, False
    return done, True


class _Display:
    """How far it is: a bar on a terminal, a line for each case elsewhere, nothing if `quiet`."""

    def __init__(self, num_cases: int, quiet: bool) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        from llmcli.ui.console import stderr_console

        console = stderr_console()
        columns = (BarColumn(20), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self._on_terminal = console.is_terminal and not quiet
        self._in_lines = not console.is_terminal and not quiet
        self._bar = Progress(*columns, console=console, transient=True, disable=not self._on_terminal)
        self._task = self._bar.add_task("", total=num_cases)
        self._num_cases = num_cases
        self._title, self._cases, self._configs = "", 0, 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show_case(self, title: str) -> None:
        self._cases, self._configs = self._cases + 1, 0
        self._title = f"{self._cases} of {self._num_cases}: {title}"
        self._bar.update(self._task, completed=self._cases - 1, description=self._title)
        if self._in_lines:
            _say(self._title)

    def count_config(self) -> None:
        self._configs += 1
        self._bar.update(self._task, description=f"{self._title}, config {self._configs}")


def _as_json(gpu: GpuFacts, file: Path, done: list["TunedCase"], finished: bool) -> dict[str, Any]:
    return {
        "gpu": dataclasses.asdict(gpu),
        "file": str(file),
        "finished": finished,
        "cases": [dataclasses.asdict(case) for case in done],
    }


def _print_table(done: list["TunedCase"]) -> None:
    from rich.table import Table

    from llmcli.ui.console import stdout_console

    table = Table(box=None, pad_edge=False)
    for name in ("case", "before", "after", "gain", "configs"):
        table.add_column(name, justify="left" if name == "case" else "right", no_wrap=True)
    table.add_column("changed", overflow="fold")
    for case in done:
        changed = {name: value for name, value in case.after.items() if case.before.get(name) != value}
        table.add_row(
            case.title,
            _microseconds(case.before_s),
            _microseconds(case.after_s),
            f"{case.before_s / case.after_s:.2f}x" if case.before_s and case.after_s else "",
            str(case.trials),
            " ".join(f"{name}={value}" for name, value in changed.items()) or "nothing",
        )
    stdout_console().print(table)


def _microseconds(seconds: float | None) -> str:
    return (
        "fails"
        if seconds is None
        else f"{seconds * 1e6:.{max(0, 2 - int(math.log10(seconds * 1e6 + 1)))}f} µs"
    )


def _warn_of_wrong_results(done: list["TunedCase"]) -> None:
    """The user is told of a config that comes with llmcli and does not work here."""
    for case in done:
        if case.problem:
            now = "another one is used from now on" if case.after_s is not None else "no other works either"
            _say(f"warning: {case.title}: the config so far is of no use here ({case.problem}); {now}")


def _say(line: str) -> None:
    from llmcli.ui.console import stderr_console
    from llmcli.ui.notes import Notes

    Notes(stderr_console()).say(line)
