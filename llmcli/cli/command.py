"""How a function becomes a command: bundles of options, hidden aliases, environment, options given twice.

Knows no particular command or option; `cli/app.py` calls `build_command`.
"""

import copy
import dataclasses
import inspect
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperOption
from typer.main import get_command

from llmcli.cli.options import HIDDEN_ALIASES

ENV_PREFIX = "LLMCLI_"
OPTIONAL_VALUE = "[ID]"
"""The metavar of an option whose value may be left out; it is then empty."""


class Command(TyperCommand):
    """A command whose options also answer to their hidden aliases and to LLMCLI_* environment variables."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        for option in self.params:
            # A list has no form in the environment that would not cut its texts at spaces.
            if isinstance(option, TyperOption) and option.envvar is None and not option.multiple:
                option.envvar = ENV_PREFIX + _long_name(option)[2:].replace("-", "_").upper()
            if isinstance(option, TyperOption):
                option.show_envvar = False

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own options, and the program's --debug, which people add at the end of a line."""
        shared = [copy.copy(option) for option in ctx.find_root().command.params if option.name == "debug"]
        for option in shared:
            option.expose_value = False
        return [*super().get_params(ctx), *shared]

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)
        for option in self.get_params(ctx):
            aliases = _aliases(option.opts)
            if aliases:
                shadow = copy.copy(option)
                shadow.opts, shadow.secondary_opts = aliases, _aliases(option.secondary_opts)
                shadow.add_to_parser(parser, ctx)
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = self._with_empty_values(args)
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
            options = [option for option in order if isinstance(option, TyperOption) and not option.multiple]
            counts = Counter(option.name for option in options)
            for option in self.get_params(ctx):
                if counts[option.name] > 1:
                    ctx.fail(f"{_long_name(option)} is given {counts[option.name]} times")
        return super().parse_args(ctx, args)

    def _with_empty_values(self, args: list[str]) -> list[str]:
        """`--resume` at the end of the line, or before another option, gets an empty value."""
        names = {name for option in self.params if option.metavar == OPTIONAL_VALUE for name in option.opts}
        filled: list[str] = []
        for word, after in zip(args, [*args[1:], None], strict=False):
            filled.append(word)
            if word == "--":
                return filled + args[len(filled) :]
            if word in names and (after is None or after.startswith("-")):
                filled.append("")
        return filled

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """One section of help per panel: arguments, the command's own options, then the shared ones."""
        sections: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                own = "Options" if isinstance(parameter, TyperOption) else "Arguments"
                sections[getattr(parameter, "rich_help_panel", None) or own].append(record)
        for title in sorted(sections, key=lambda title: (title != "Arguments", title != "Options")):
            with formatter.section(title):
                formatter.write_dl(sections[title])


def build_command(name: str, function: Callable[..., None]) -> TyperCommand:
    """The command `name` that calls `function`; its docstring is the help."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=Command)(spread_bundles(function))
    command = get_command(app)
    assert isinstance(command, TyperCommand)
    return command


def spread_bundles(function: Callable[..., None]) -> Callable[..., None]:
    """A function that takes each field of `function`'s dataclass parameters by name, and passes them on."""
    hints = get_type_hints(function, include_extras=True)
    bundles: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in bundles:
            parameters += _fields_as_parameters(bundles[name])
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name]))

    def call(**values: Any) -> None:
        for name, bundle in bundles.items():
            values[name] = bundle(
                **{field.name: values.pop(field.name) for field in dataclasses.fields(bundle)}
            )
        function(**values)

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _fields_as_parameters(bundle: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(bundle, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in dataclasses.fields(bundle)
    ]


def _long_name(option: Any) -> str:
    return next((name for name in option.opts if name.startswith("--")), str(option.opts[0]))


def _aliases(names: list[str]) -> list[str]:
    return [alias for name in names for alias in HIDDEN_ALIASES.get(name, ())]
