"""How a function becomes a command: bundles of options, hidden aliases, environment, configuration files, examples.

A value comes from the flag, else the environment, else a file, else it is built in; `Settings` tells a command which.
Knows no particular command or option; `cli/groups.py` calls `build_command`.
"""

import copy
import dataclasses
import inspect
import os
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from llmcli.cli.form_options import drop_weaker_forms
from llmcli.cli.keys import (
    MODEL_VARIABLE,
    check_layers,
    default_model,
    keys_of,
    long_name,
    option_value,
    read_vocabulary,
    set_variable,
    variable_of,
)
from llmcli.cli.layers import MODEL, Setting, aliases_of, in_force, read_layers
from llmcli.cli.options import HIDDEN_ALIASES, LISTING_METAVAR, OPTIONAL_VALUE, SHORT_FORMS
from llmcli.cli.value_aliases import replace_value_aliases
from llmcli.errors import LLMCliError, quote
from llmcli.ui.parameters import FLAG

EXAMPLES = "Examples:"
_CONFIGURED = "llmcli.configured"  # a place in the context that Typer hands on

# What a bundle may have: values of options as typed, and the default model -> the model if none is typed.
UnnamedModel = Callable[[Mapping[str, Any], str | None], str | None]


@dataclass(frozen=True, slots=True)
class _Configured:
    """What the environment and the files give to the command that runs.

    Attributes:
        files: parameter -> the setting that it gets where neither a flag nor the environment gives one.
        model: the default model.
        model_origin: where that comes from, empty if another model was typed.
        trouble: why the files give nothing, for a command that runs all the same.
        aliases: the models that short names stand for.
    """

    files: Mapping[str, Setting]
    model: str | None
    model_origin: str
    trouble: Exception | None = None
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the values of a command's options come from. A command that wants it takes a parameter of this type.

    Attributes:
        origins: parameter -> "flag", "environment variable LLMCLI_X" or "~/.config/llmcli/config.toml [defaults]";
            without those whose value is built in.
        model: the default model that the environment or a file names.
        aliases: the models that short names stand for.
    """

    origins: Mapping[str, str]
    model: str | None
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileTrouble:
    """What is wrong with a configuration file, if anything. A command that takes a parameter of this type is told, and
    runs without the files; every other command is stopped."""

    error: Exception | None


class Command(TyperCommand):
    """A command whose options answer to hidden aliases, LLMCLI_* environment variables and configuration files."""

    configurable = True
    survives_files = False  # see `FileTrouble`
    unnamed_model: UnnamedModel | None = None

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        for option in self.params:
            # A list has no form in the environment that would not cut its texts at spaces.
            if isinstance(option, TyperOption) and option.envvar is None and not option.multiple:
                option.envvar = variable_of(option)
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
            for flags, value in _short_forms(option):
                parser.add_option(obj=option, opts=flags, dest=option.name, action="store_const", const=value)
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = self._with_empty_values(args)
        if not ctx.resilient_parsing:
            names = {name for option in self.params for name in (*option.opts, *option.secondary_opts)}
            args = list(replace_value_aliases(args, names))
            typed, _, order = self.make_parser(ctx).parse_args(list(args))
            self._refuse_doubles(ctx, order)
            if self.configurable and not typed.get("help"):  # help works beside a broken file
                self._configure(ctx, typed)
        rest = super().parse_args(ctx, args)
        aliases = {} if ctx.params.get("url") else _configured(ctx).aliases  # a server has names of its own
        for parameter in filter(_names_model, self.params):
            value = ctx.params.get(parameter.name)
            ctx.params[parameter.name] = aliases.get(value, value) if isinstance(value, str) else value
        return rest

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

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except LLMCliError as error:
            configured = _configured(ctx)
            lines = [error.why, self._origin_of_refused(ctx, error.what)]
            if configured.model_origin and quote(configured.model) in error.what:
                lines.append(f"the model is your default, from {configured.model_origin}")
            error.why = "\n".join(filter(None, lines))
            raise

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

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples, line by line: one that is cut or joined could not be copied."""
        if self.epilog:
            with formatter.section(EXAMPLES.removesuffix(":")):
                formatter.write(textwrap.indent(self.epilog, " " * formatter.current_indent) + "\n")

    def _refuse_doubles(self, ctx: Any, order: list[Any]) -> None:
        options = [option for option in order if isinstance(option, TyperOption) and not option.multiple]
        counts = Counter(option.name for option in options)
        for option in self.get_params(ctx):
            if counts[option.name] > 1:
                short = ", ".join(flag for flags, _ in _short_forms(option) for flag in flags)
                too = f" ({short} are short for it)" if short else ""
                ctx.fail(f"{long_name(option)} is given {counts[option.name]} times{too}")

    def _configure(self, ctx: Any, typed: Mapping[str, Any]) -> None:
        """Let the configuration files give what neither a flag nor the environment does."""
        try:
            self._read_files(ctx, typed)
        except Exception as error:  # not only of ours: a library may be broken, too
            if not self.survives_files:
                raise
            ctx.default_map, ctx.meta[_CONFIGURED] = {}, _Configured({}, None, "", error)

    def _read_files(self, ctx: Any, typed: Mapping[str, Any]) -> None:
        layers, section, keys = read_layers(), _section(ctx), keys_of(self)
        root = ctx.find_root().command
        if isinstance(root, TyperGroup) and layers:
            vocabulary = cache(lambda: read_vocabulary(root, ctx))
            check_layers(layers, section, keys, vocabulary)
            if self.survives_files:  # it tells of all that is wrong, also in what is for other commands
                from llmcli.cli.config_values import check_files

                check_files(ctx, layers, vocabulary())
        aliases = aliases_of(layers)
        default, origin = _default_model(in_force(layers, section, None).get(MODEL))
        default = default and aliases.get(default, default)
        model = self._named_model(typed, default, aliases) if default or any(layers) else None
        settings = in_force(layers, section, model)
        drop_weaker_forms(settings)
        files = {keys[key].name: setting for key, setting in settings.items() if key in keys}
        ctx.meta[_CONFIGURED] = _Configured(
            files, default, origin if model == default else "", aliases=aliases
        )
        by_name = {parameter.name: parameter for parameter in keys.values()}
        ctx.default_map = {name: option_value(setting, by_name[name]) for name, setting in files.items()}

    def _named_model(
        self, typed: Mapping[str, Any], default: str | None, aliases: Mapping[str, str]
    ) -> str | None:
        """The model that the command is about, None for a command without one."""
        from llmcli.hub.models import BUNDLED_NAME
        from llmcli.ui.positionals import split_model_and_prompt

        words = {parameter.metavar: typed.get(parameter.name) for parameter in self.params}
        if "MODEL" not in words:
            return None
        word = words["MODEL"]
        first = aliases.get(word, word) if isinstance(word, str) else word
        model, _ = split_model_and_prompt(first, words.get("PROMPT"))
        if model is None and self.unnamed_model is not None:
            model = self.unnamed_model(typed, default)
        return model or default or BUNDLED_NAME

    def _origin_of_refused(self, ctx: Any, message: str) -> str:
        """Where the value comes from that a message about an option (`--top-p must be …`) refuses, unless typed."""
        for parameter in self.params:
            if (
                message.split(" ", 1)[0].rstrip(":") in parameter.opts
                and parameter.param_type_name == "option"
            ):
                return told_origin(ctx, parameter)
        return ""


def _names_model(parameter: Any) -> bool:
    """Whether a parameter takes a model of this machine: other options of that name are for servers."""
    elsewhere = isinstance(parameter, TyperOption) and parameter.envvar != MODEL_VARIABLE
    is_model = parameter.metavar == "MODEL" or (parameter.metavar, parameter.name) == ("ID", "model")
    return is_model and not elsewhere


def origin_of(ctx: Any, parameter: Any) -> str | None:
    """Where a parameter's value comes from, None if it is built in."""
    source = ctx.get_parameter_source(parameter.name)
    kind = None if source is None else source.name
    if kind == "COMMANDLINE":
        return FLAG
    if kind == "ENVIRONMENT":
        return f"environment variable {set_variable(parameter)}"
    files = _configured(ctx).files
    return files[parameter.name].origin if kind == "DEFAULT_MAP" and parameter.name in files else None


def told_origin(ctx: Any, parameter: Any) -> str:
    """A line for an error: where a value comes from that was not typed, else an empty string."""
    origin = origin_of(ctx, parameter)
    if origin is None or origin == FLAG:
        return ""
    return "the value comes from " + (f"the {origin}" if origin.startswith("environment") else origin)


def _default_model(setting: Setting | None) -> tuple[str | None, str]:
    """The default model that the environment or a file names, and which of them."""
    named = default_model(setting)
    if value := os.environ.get(MODEL_VARIABLE):
        return value, f"the environment variable {MODEL_VARIABLE}"
    return named, setting.origin if setting else ""


def _configured(ctx: Any) -> _Configured:
    found = ctx.meta.get(_CONFIGURED)
    return found if isinstance(found, _Configured) else _Configured({}, None, "")


def build_command(name: str, function: Callable[..., None], *, configurable: bool = True) -> Command:
    """The command `name` that calls `function`; its docstring is the help, and what follows `Examples:` its end.

    Args:
        configurable: whether configuration files give values to its options.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    text, examples = split_examples(function.__doc__ or "")
    app.command(name, cls=Command, help=text, epilog=examples)(spread_bundles(function))
    command = get_command(app)
    assert isinstance(command, Command)
    command.configurable = configurable
    hints = get_type_hints(function).values()
    command.survives_files = FileTrouble in hints
    command.unnamed_model = next(
        (hint.unnamed_model for hint in hints if hasattr(hint, "unnamed_model")), None
    )
    return command


def split_examples(docstring: str) -> tuple[str, str]:
    """The text of a docstring, and the lines of its section of examples."""
    text, _, examples = inspect.cleandoc(docstring).partition(f"\n{EXAMPLES}\n")
    lines = [line for line in textwrap.dedent(examples).splitlines() if line.strip()]
    return text.strip(), "\n".join(lines)


def spread_bundles(function: Callable[..., None]) -> Callable[..., None]:
    """A function that takes each field of `function`'s dataclass parameters by name, and passes them on."""
    hints = get_type_hints(function, include_extras=True)
    told = {name: hint for name, hint in hints.items() if hint in (Settings, FileTrouble)}
    bundles: dict[str, Any] = {
        name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint) and name not in told
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in bundles:
            parameters += _fields_as_parameters(bundles[name])
        else:
            annotation = typer.Context if name in told else hints[name]
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=annotation))

    def call(**values: Any) -> None:
        for name, hint in told.items():
            values[name] = _settings(values[name]) if hint is Settings else _trouble(values[name])
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


def _settings(ctx: Any) -> Settings:
    origins = {parameter.name: origin_of(ctx, parameter) for parameter in ctx.command.params}
    known = {name: origin for name, origin in origins.items() if origin is not None}
    return Settings(known, _configured(ctx).model, _configured(ctx).aliases)


def _trouble(ctx: Any) -> FileTrouble:
    return FileTrouble(_configured(ctx).trouble)


def _section(ctx: Any) -> str:
    """The name of the command just below the program: `bench` for `llmcli bench compare` too."""
    while ctx.parent is not None and ctx.parent.parent is not None:
        ctx = ctx.parent
    return str(ctx.info_name).split()[0]


def _aliases(names: list[str]) -> list[str]:
    return [alias for name in names for alias in HIDDEN_ALIASES.get(name, ())]


def _short_forms(option: Any) -> Iterator[tuple[list[str], str]]:
    """Flags that stand for a value of `option`, with the value."""
    if isinstance(option, TyperOption) and option.metavar == LISTING_METAVAR:
        yield from ((list(flags), value) for value, flags in SHORT_FORMS.items())
