"""`llmcli config`: the settings in force and where each comes from, and changes to the user's file.

The layers are `cli/layers.py`'s, the keys `cli/keys.py`'s. A broken file stops `show`, `set` and `unset` with its
error, and leaves `path` and `edit` to mend it.
"""

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from llmcli.cli.completion import complete_model
from llmcli.cli.config_values import Section, check_files, checked_value, every_key, find_place
from llmcli.cli.config_writer import remove_setting, write_setting
from llmcli.cli.editor import editor_command
from llmcli.cli.groups import Place, Subcommands
from llmcli.cli.keys import MODEL_VARIABLE, SECRETS, Vocabulary, read_vocabulary, set_variable
from llmcli.cli.layers import (
    ALIASES,
    MODEL,
    Layers,
    Setting,
    aliases_of,
    in_force,
    read_file,
    read_layers,
    shown,
    user_file,
)
from llmcli.cli.listing import Column, print_listing
from llmcli.cli.options import ListingFormat
from llmcli.errors import LLMCliError, UsageError, quote

BUILT_IN = "built-in"
HIDDEN = "(hidden)"
MAX_HELP = 60  # characters that a shell shows beside a key
GENERATION_CONFIG = "model's generation_config.json"
TEMPLATE = """\
# Settings of llmcli: any option by its long name. `llmcli config show --all` lists them.

[defaults]
# model = "owner/name"
# temperature = 0.7

# [models."owner/*"]
# max-model-len = "8k"

# [aliases]
# llama = "owner/name"
"""

SUBCOMMANDS = Subcommands(
    help="Show and change the defaults of options.",
    table={
        name: Place("llmcli.cli.config", function)
        for name, function in (
            ("show", "show"),
            ("set", "set_value"),
            ("unset", "unset"),
            ("path", "path"),
            ("edit", "edit"),
        )
    },
    configurable=False,
)


def _complete_key(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The keys that a shell offers, with what they mean."""
    keys = every_key(_vocabulary(ctx)).items()
    return [
        (key, (option.help or "")[:MAX_HELP]) for key, option in sorted(keys) if key.startswith(incomplete)
    ]


Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        show_default=False,
        autocompletion=_complete_key,
        help="Long name of an option, such as max-tokens; run.format is for `llmcli run` only.",
    ),
]
ForModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        envvar=[],  # LLMCLI_MODEL says what to run, not where to write
        autocompletion=complete_model,
        help='Only for this model; "owner/*" is for all of them.',
    ),
]


@dataclass(frozen=True, slots=True)
class Row:
    """One setting in force; `key` is COMMAND.KEY where it counts for one command only."""

    key: str
    value: Any
    origin: str


COLUMNS = (Column("KEY", lambda row: row.key), Column("VALUE", lambda row: show_value(row.value)))
ORIGIN = Column("ORIGIN", lambda row: row.origin)


def show(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            autocompletion=complete_model,
            help="Also what is set for this model, by you and by its generation_config.json.",
        ),
    ] = None,
    *,
    origin: Annotated[bool, typer.Option("--origin", help="Also where each value comes from.")] = False,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also what is built in.")] = False,
    form: ListingFormat = "auto",
) -> None:
    """Show the settings in force.

    From weak to strong: built in, the model's generation_config.json, the user's file ([defaults], then [COMMAND],
    then [models."owner/name"]), ./llmcli.toml in the same order, LLMCLI_* environment variables, flags.

    Examples:
        llmcli config show --origin
        llmcli config show --all --json
        llmcli config show TheBloke/Llama-2-7B-Chat-AWQ
    """
    vocabulary, layers = _vocabulary(ctx), read_layers()
    check_files(ctx, layers, vocabulary)
    model = aliases_of(layers).get(model, model) if model else model
    rows = sorted(map(_without_secret, _rows(layers, vocabulary, model)), key=lambda row: row.key)
    found = [row for row in rows if everything or row.origin != BUILT_IN]
    print_listing(found, (*COLUMNS, ORIGIN) if origin else COLUMNS, form, key="key")
    if not found:
        typer.echo("everything is built in; --all shows it", err=True)


def set_value(
    ctx: typer.Context,
    key: Key,
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="VALUE", show_default=False, help="Also as KEY=VALUE; stop takes several."),
    ] = None,
    *,
    model: ForModel = None,
) -> None:
    """Write a setting into the user's file; the rest of the file stays as it is.

    Examples:
        llmcli config set model TheBloke/Llama-2-7B-Chat-AWQ
        llmcli config set temperature 0.7
        llmcli config set top-k=-1
        llmcli config set max-model-len 8k --model "TheBloke/*"
        llmcli config set run.format openai
        llmcli config set aliases.llama TheBloke/Llama-2-7B-Chat-AWQ
    """
    if not values and "=" in key:
        key, _, text = key.partition("=")
        values = [text]
    if not values:
        raise UsageError(f"no value for {quote(key)}", fix=f"llmcli config set {quote(key)} VALUE")
    read_file(user_file())  # told with line and column before anything is changed
    section, name, options = find_place(key, _meant(model), _vocabulary(ctx))
    value = checked_value(ctx, name, options, values)
    write_setting(user_file(), section, name, value)
    said = HIDDEN if name in SECRETS else show_value(value)
    typer.echo(f"{name} = {said} in {shown(user_file())} [{_title(section)}]", err=True)
    variable = None if section == (ALIASES,) else _set_variable(name, next(iter(options.values()), None))
    if variable:
        typer.echo(f"{variable} in the environment goes before it", err=True)


def unset(ctx: typer.Context, key: Key, *, model: ForModel = None) -> None:
    """Remove a setting from the user's file.

    Examples:
        llmcli config unset temperature
        llmcli config unset max-model-len --model "TheBloke/*"
    """
    read_file(user_file())
    section, name, _ = find_place(key, _meant(model), _vocabulary(ctx))
    if not remove_setting(user_file(), section, name):
        raise UsageError(
            f"{quote(name)} is not set in {shown(user_file())} [{_title(section)}]",
            fix="`llmcli config show --origin` tells where values come from",
        )


def path() -> None:
    """Print where the user's file is, or would be.

    Examples:
        cat "$(llmcli config path)"
    """
    typer.echo(str(user_file()))


def edit(ctx: typer.Context) -> None:
    """Open the user's file in $VISUAL or $EDITOR, and check it afterwards.

    Examples:
        EDITOR=nano llmcli config edit
    """
    file = user_file()
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(TEMPLATE, "utf-8")
        except OSError as error:
            raise LLMCliError(f"{shown(file)} can not be written: {error.strerror}") from error
    editor = editor_command()
    try:
        code = subprocess.run([*shlex.split(editor), str(file)], check=False).returncode
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the editor {quote(editor)} can not be started: {error}", fix="set EDITOR to another one"
        ) from None
    if code:
        raise LLMCliError(f"the editor {quote(editor)} ended with exit code {code}")
    check_files(ctx, [read_file(file)], _vocabulary(ctx))


def show_value(value: object) -> str | None:
    """A setting's value as people write it; None for one that is not set."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _rows(layers: Layers, vocabulary: Vocabulary, model: str | None) -> Iterator[Row]:
    defaults = {} if model is None else _generation_defaults(model)
    settings = in_force(layers, None, model)
    for key, parameter in (every_key(vocabulary) | {MODEL: None}).items():
        yield _row(key, parameter, settings.get(key), defaults)
    special = {
        f"{setting.command}.{setting.key}": setting
        for setting in chain.from_iterable(layers)
        if setting.command is not None
    }
    yield from (Row(key, setting.value, setting.origin) for key, setting in special.items())


def _row(key: str, parameter: Any, setting: Setting | None, model_defaults: Mapping[str, Any]) -> Row:
    if variable := _set_variable(key, parameter):
        return Row(key, os.environ[variable], f"environment variable {variable}")
    if setting is not None:
        return Row(key, setting.value, setting.origin)
    if key == MODEL:
        from llmcli.hub.models import BUNDLED_NAME

        return Row(key, BUNDLED_NAME, BUILT_IN)
    if parameter.name in model_defaults:
        return Row(key, model_defaults[parameter.name], GENERATION_CONFIG)
    value = parameter.default
    plain = value is None or isinstance(value, str | int | float | list)
    return Row(key, value if plain else str(value), BUILT_IN)


def _without_secret(row: Row) -> Row:
    """The row as it may be shown: people paste this list."""
    secret = row.key.rpartition(".")[2] in SECRETS and row.value is not None
    return replace(row, value=HIDDEN) if secret else row


def _generation_defaults(model: str) -> dict[str, Any]:
    """Sampling fields that a model on this machine sets; nothing for one that is elsewhere."""
    from llmcli.hub.models import find_local
    from llmcli.model.generation_config import read_generation_config
    from llmcli.model.spec import read_model_spec

    local = find_local(model)
    if local is None:
        return {}
    fields, _, _ = read_generation_config(local.path, read_model_spec(local.path))
    return fields


def _set_variable(key: str, parameter: Any) -> str | None:
    """The environment variable that gives a key its value now, if one does."""
    if key == MODEL:
        return MODEL_VARIABLE if os.environ.get(MODEL_VARIABLE) else None
    return set_variable(parameter)


def _vocabulary(ctx: typer.Context) -> Vocabulary:
    root = ctx.find_root().command
    assert isinstance(root, TyperGroup)
    return read_vocabulary(root, ctx)


def _meant(model: str | None) -> str | None:
    """The model that a short name stands for: settings are kept under its own name."""
    return None if model is None else aliases_of(read_layers()).get(model, model)


def _title(section: Section) -> str:
    return section[0] if len(section) == 1 else f'{section[0]}."{quote(section[1])}"'
