"""Groups of commands: the program itself, and commands that consist of commands, such as `llmcli config`.

Each command of a group is imported when it is asked for. Knows no particular command; `cli/app.py` makes the
program's group, and a table may name a `Subcommands` where it could name a function.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from llmcli.cli.command import build_command
from llmcli.errors import UsageError, quote
from llmcli.nearest import did_you_mean

MAX_SUMMARY = 1000  # characters: as good as none


class Place(NamedTuple):
    """Where a command is, and what its group's help says of it.

    Attributes:
        name: of a function, or of a `Subcommands`.
        summary: the first sentence of its help; without it the module is imported to find it.
    """

    module: str
    name: str
    summary: str = ""


# A name of two words is a form of the command that its first word names; help does not list it.
CommandTable = Mapping[str, Place]


@dataclass(frozen=True)
class Subcommands:
    """A command that consists of commands.

    Attributes:
        configurable: whether configuration files give values to their options.
    """

    help: str
    table: CommandTable
    configurable: bool = True


class CommandGroup(TyperGroup):
    """The commands of a table, and other words for some of them."""

    table: CommandTable = MappingProxyType({})
    aliases: Mapping[str, str] = MappingProxyType({})
    configurable = True

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name in self.table if " " not in name]

    def get_command(self, ctx: Any, cmd_name: str) -> "TyperCommand | CommandGroup | None":
        if cmd_name not in self.table:
            return None
        place = self.table[cmd_name]
        target = getattr(importlib.import_module(place.module), place.name)
        if isinstance(target, Subcommands):
            return _build_group(cmd_name, target)
        return build_command(cmd_name, target, configurable=self.configurable)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The commands and what each is for."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._summary(ctx, name)) for name in self.list_commands(ctx)])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        args = [self.aliases.get(args[0], args[0]), *args[1:]]
        if " ".join(args[:2]) in self.table:
            args = [" ".join(args[:2]), *args[2:]]
        if args[0] not in self.table and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = did_you_mean(args[0], self.table, f"{ctx.command_path} ")
            known = f"commands: {', '.join(self.list_commands(ctx))}; see {ctx.command_path} --help"
            raise UsageError(f"no such command: {quote(args[0])}", fix=near or known)
        return super().resolve_command(ctx, args)

    def _summary(self, ctx: Any, name: str) -> str:
        if summary := self.table[name].summary:
            return summary
        command = self.get_command(ctx, name)
        assert command is not None
        return str(command.get_short_help_str(limit=MAX_SUMMARY))


def _build_group(name: str, subcommands: Subcommands) -> CommandGroup:
    app = typer.Typer(cls=CommandGroup, add_completion=False, rich_markup_mode=None)
    app.callback(invoke_without_command=True, help=subcommands.help)(_show_help)
    group = get_command(app)
    assert isinstance(group, CommandGroup)
    group.name, group.table, group.configurable = name, subcommands.table, subcommands.configurable
    return group


def _show_help(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
