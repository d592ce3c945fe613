"""A small command table, with one command for each way in which a command can end; a program for test_app."""

import json
import os
import signal
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer

from llmcli.cli.app import main
from llmcli.cli.command import Settings
from llmcli.cli.form_options import FormOptions
from llmcli.cli.groups import Place
from llmcli.cli.options import EngineOptions, Json, ModelArgument, ModelOptions, SamplingOptions, System
from llmcli.errors import GatedModelError
from llmcli.ui.console import stdout_console

TABLE = {
    name: Place("tests.cli.probe_commands", name)
    for name in ("show", "fail", "crash", "flood", "wait", "sure")
}


def show(
    model: ModelArgument = None,
    *,
    system: System = None,
    as_json: Json = False,
    options: ModelOptions,
    engine: EngineOptions,
    forms: FormOptions,
    sampling: SamplingOptions,
    settings: Settings,
) -> None:
    """Print what was understood."""
    shown = {"model": model, "system": system, "json": as_json, "model_options": asdict(options)}
    forms.form(settings.origins)
    shown |= {"origins": dict(settings.origins), "default_model": settings.model}
    typer.echo(json.dumps(shown | {"engine": asdict(engine.config()), "sampling": sampling.overrides()}))


def fail() -> None:
    """Fail in a way that is known."""
    raise GatedModelError("no access to [red]x[/]", why="a licence\nand a login", fix="run `hf auth login`")


def crash() -> None:
    """Fail in a way that nobody foresaw."""
    raise ZeroDivisionError("[bold]boom\x1b[31m")


def flood(through: Annotated[str, typer.Argument()] = "echo") -> None:
    """Print for ever."""
    write = stdout_console().print if through == "rich" else typer.echo
    while True:
        write("y" * 1000)


def wait(number: Annotated[int, typer.Argument()] = signal.SIGINT) -> None:
    """Get a signal from outside, and tidy up."""
    try:
        os.kill(os.getpid(), number)
        time.sleep(60)
    finally:
        print("tidied up", file=sys.stderr)


def sure() -> None:
    """Ask, and stop at a no."""
    typer.confirm("sure?", abort=True, err=True)


if __name__ == "__main__":
    main(table=TABLE)
