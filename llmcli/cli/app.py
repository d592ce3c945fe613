"""The `llmcli` program: its commands, loaded when asked for, and the one place that ends the process.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some items failed, 4 model not obtainable, 5 model not runnable
here, 6 server address in use or not reachable, 130 interrupted, 141 reader gone, 143 terminated. Knows no torch;
each command imports what it needs when it runs.
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any

import typer
from typer.completion import shell_complete
from typer.main import get_command

from llmcli import __version__
from llmcli.cli.groups import CommandGroup, CommandTable, Place
from llmcli.cli.report import (
    BROKEN_PIPE,
    DISK_FULL,
    FAILED,
    INTERRUPTED,
    TERMINATED,
    report_disk_full,
    report_error,
    report_unexpected,
    report_usage,
)
from llmcli.errors import LLMCliError

# In the order of `llmcli --help`.
COMMANDS: CommandTable = {
    "chat": Place("llmcli.cli.chat", "chat", "Chat with a model, or answer one prompt and exit."),
    "run": Place("llmcli.cli.run", "run", "Answer every prompt of a file, many at once."),
    "bench": Place("llmcli.cli.bench.quick", "bench", "Measure tokens per second."),
    "bench latency": Place("llmcli.cli.bench.latency", "latency"),
    "bench throughput": Place("llmcli.cli.bench.throughput", "throughput"),
    "bench serve": Place("llmcli.cli.bench.serve", "serve"),
    "bench startup": Place("llmcli.cli.bench.startup", "startup"),
    "bench sweep": Place("llmcli.cli.bench.sweep", "sweep"),
    "bench compare": Place("llmcli.cli.bench.compare", "compare"),
    "tune": Place("llmcli.cli.tune", "tune", "Find the fastest kernel tiles for this GPU."),
    "quantize": Place("llmcli.cli.quantize", "quantize", "Turn a dense model into a 4-bit AWQ model."),
    "pull": Place("llmcli.cli.pull", "pull", "Fetch a model from the Hugging Face hub."),
    "list": Place("llmcli.cli.list", "list_models", "List the models on this machine."),
    "show": Place("llmcli.cli.show", "show", "Show what a model is, and whether it fits here."),
    "rm": Place("llmcli.cli.rm", "rm", "Delete models from the hub's cache."),
    "prune": Place("llmcli.cli.prune", "prune", "Delete old revisions and unfinished downloads."),
    "verify": Place("llmcli.cli.verify", "verify", "Find damaged files of cached models, and remove them."),
    "sessions": Place("llmcli.cli.sessions", "sessions", "List, show, remove or export saved chats."),
    "config": Place("llmcli.cli.config", "SUBCOMMANDS", "Show and change the defaults of options."),
    "doctor": Place("llmcli.cli.doctor", "doctor", "Check what works here, and tell how to mend the rest."),
}

# What people type out of habit; help does not list it.
ALIASES = {"ls": "list"}


class Program(CommandGroup):
    """All commands; tests put a table of their own in place of this one."""

    table = COMMANDS
    aliases = ALIASES


app = typer.Typer(
    cls=Program,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"llmcli {__version__}")
        raise typer.Exit


def _set_debug(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        ctx.ensure_object(dict)["debug"] = True


@app.callback(
    invoke_without_command=True,
    epilog="Every option can be set in the environment (--max-tokens is LLMCLI_MAX_TOKENS) and in a file"
    " (llmcli config set max-tokens 8k). llmcli help COMMAND shows examples.",
)
def llmcli(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            callback=_set_debug,
            envvar="LLMCLI_DEBUG",
            show_envvar=False,
            help="Show the traceback of a failure.",
        ),
    ] = False,
) -> None:
    """Run large language models on your own machine."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main(args: Sequence[str] | None = None, table: CommandTable = COMMANDS) -> None:
    """Run the command line and exit with its code."""
    _replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _raise_exit)
    code = run_command_line(list(sys.argv[1:] if args is None else args), table)
    _settle_output()
    if code == INTERRUPTED:
        os._exit(code)  # taking torch down by the book takes a second on a busy machine
    sys.exit(code)


def run_command_line(args: list[str], table: CommandTable = COMMANDS) -> int:
    """Run one command line to its exit code; whatever goes wrong has been told on stderr."""
    state: dict[str, Any] = {}
    try:
        code = _invoke(args, table, state)
        sys.stdout.flush()
        return code
    except LLMCliError as error:
        return report_error(error)
    except typer.TyperException as error:
        return report_usage(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except typer.Abort:  # a question was answered with no
        return FAILED
    except BrokenPipeError:
        return BROKEN_PIPE
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return report_disk_full(error)
        return report_unexpected(error, debug="debug" in state)


def _invoke(args: list[str], table: CommandTable, state: dict[str, Any]) -> int:
    group = get_command(app)
    assert isinstance(group, CommandGroup)
    group.table = table
    if os.environ.get("_LLMCLI_COMPLETE"):
        group.main(args, prog_name="llmcli")  # a shell asks for completions; exits by itself
    if args[:1] == ["--show-completion"] and len(args) == 2:  # of another shell than the one that calls
        return shell_complete(group, {}, "llmcli", "_LLMCLI_COMPLETE", f"source_{args[1]}")
    if args[:1] == ["help"]:
        args = [*args[1:], "--help"]
    try:
        with group.make_context("llmcli", args, obj=state) as ctx:
            group.invoke(ctx)
    except typer.Exit as stop:
        return stop.exit_code
    return 0


def _raise_exit(signum: int, frame: FrameType | None) -> None:
    """Leave through every `finally`, so that files are closed and threads are told to stop."""
    raise SystemExit(TERMINATED)


def _replace_closed_streams() -> None:
    """Python has None for a stream that was closed before it started (`llmcli … <&-`)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open as long as the process


def _settle_output() -> None:
    """Flush the streams, or point them at nothing: the interpreter flushes them at exit, and would complain again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
