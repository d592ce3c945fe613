"""The `llmcli` program: its commands, loaded when asked for, and the one place that ends the process.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some items failed, 4 model not obtainable, 5 model not runnable
here, 130 interrupted, 141 reader gone, 143 terminated. Knows no torch; each command imports what it needs
when it runs.
"""

import difflib
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from llmcli import __version__
from llmcli.cli.command import build_command
from llmcli.cli.report import (
    BROKEN_PIPE,
    FAILED,
    INTERRUPTED,
    TERMINATED,
    report_error,
    report_unexpected,
    report_usage,
)
from llmcli.errors import LLMCliError, UsageError, quote

CommandTable = Mapping[str, tuple[str, str]]

# Command name -> module and function, in the order of `llmcli --help`.
COMMANDS: CommandTable = {
    "chat": ("llmcli.cli.chat", "chat"),
    "run": ("llmcli.cli.run", "run"),
    "bench": ("llmcli.cli.bench", "bench"),
    "tune": ("llmcli.cli.tune", "tune"),
    "pull": ("llmcli.cli.pull", "pull"),
    "list": ("llmcli.cli.list", "list_models"),
    "show": ("llmcli.cli.show", "show"),
    "rm": ("llmcli.cli.rm", "rm"),
    "doctor": ("llmcli.cli.doctor", "doctor"),
}
# What people type out of habit; help does not list it.
ALIASES = {"ls": "list"}


class CommandGroup(TyperGroup):
    """The commands of a table, each imported when it is asked for."""

    table: CommandTable = COMMANDS

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        if cmd_name not in self.table:
            return None
        module, function = self.table[cmd_name]
        return build_command(cmd_name, getattr(importlib.import_module(module), function))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        args = [ALIASES.get(args[0], args[0]), *args[1:]]
        if args[0] not in self.table and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(args[0], self.table, 1)
            known = f"commands: {', '.join(self.table)}; see llmcli --help"
            fix = f"did you mean llmcli {near[0]}?" if near else known
            raise UsageError(f"no such command: {quote(args[0])}", fix=fix)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=CommandGroup,
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
    epilog="Every option can be set in the environment: --max-tokens is LLMCLI_MAX_TOKENS.",
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
        return report_unexpected(error, debug="debug" in state)


def _invoke(args: list[str], table: CommandTable, state: dict[str, Any]) -> int:
    group = get_command(app)
    assert isinstance(group, CommandGroup)
    group.table = table
    if os.environ.get("_LLMCLI_COMPLETE"):
        group.main(args, prog_name="llmcli")  # a shell asks for completions; exits by itself
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
    """Flush stdout, or point it at nothing: the interpreter flushes it at exit, and would complain again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
