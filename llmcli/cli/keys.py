"""Which keys a configuration file may hold: the long names of the options that the commands have.

Turns a key into an option and a value of the file into what a flag would have given; what is wrong is told with the
file, the section and the nearest name. Knows no particular command or option. Called by `cli/command.py` when a
command is parsed, and by `cli/config.py`.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from typer.core import TyperCommand, TyperGroup, TyperOption

from llmcli.cli.layers import (
    ALIASES,
    DEFAULTS,
    MODEL,
    MODELS,
    PROJECT_FILE,
    Layers,
    Setting,
    aliases_of,
    shown,
    user_file,
)
from llmcli.errors import UsageError, quote
from llmcli.nearest import did_you_mean

ENV_PREFIX = "LLMCLI_"
MODEL_VARIABLE = "LLMCLI_MODEL"
# What destroys or skips a question is said each time: a file that lies in some folder must not say it.
FLAGS_ONLY = ("yes", "overwrite", "force")
# What reads a file of the user's, or says where prompts and keys go: a project's file, which somebody else may have
# written, must not say that.
USER_ONLY = (
    *("file", "chat-template", "generation-config", "json-schema", "grammar"),
    *("url", "base-url", "host", "api-key", "token"),
)
SECRETS = ("api-key", "token")  # not to be shown

Keys = Mapping[str, Any]  # key -> Typer's parameter
Vocabulary = Mapping[str, Keys]  # command -> its keys


def long_name(option: Any) -> str:
    """`--max-tokens`, or the only name that there is."""
    return next((name for name in option.opts if name.startswith("--")), str(option.opts[0]))


def variable_of(option: Any) -> str:
    """The environment variable that an option is named after."""
    return ENV_PREFIX + long_name(option)[2:].replace("-", "_").upper()


def set_variable(parameter: Any) -> str | None:
    """The environment variable that gives a parameter its value now, if one does."""
    names = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or ()
    return next((name for name in names if os.environ.get(name)), None)


def keys_of(command: TyperCommand) -> Keys:
    """The keys that set something of one command: its options, and the model where it can be left out."""
    named = ((_key(parameter), parameter) for parameter in command.params)
    return {key: parameter for key, parameter in named if key is not None}


def read_vocabulary(root: TyperGroup, ctx: Any) -> Vocabulary:
    """The keys of every command of the program; subcommands share the section of their command."""
    known: dict[str, dict[str, Any]] = {}
    for name, command in _commands(root, ctx):
        known.setdefault(name, {}).update(keys_of(command))
    return known


def check_layers(layers: Layers, command: str, keys: Keys, vocabulary: Callable[[], Vocabulary]) -> None:
    """Check that every key of the files exists.

    Args:
        command, keys: what is known already: the command that runs.
        vocabulary: loads the keys of all commands; called only when those do not suffice.

    Raises:
        UsageError: an unknown section or key, or one that a project may not set.
    """
    aliases = aliases_of(layers)
    for setting in chain.from_iterable(layers):
        if setting.command == ALIASES:
            check_alias(setting.key, setting.origin)
            _check_target(setting)
            continue
        if setting.pattern in aliases:
            raise UsageError(
                f"{setting.origin}: {quote(setting.pattern)} is an alias",
                fix=f'write [{MODELS}."{quote(aliases[setting.pattern])}"]',
            )
        if setting.path == PROJECT_FILE and setting.key in USER_ONLY:
            raise UsageError(
                f"{setting.origin}: {setting.key} is not taken from a project's file",
                why="others may have written it",
                fix=f"set it in {shown(user_file())}, or give --{setting.key}",
            )
        if setting.key == MODEL and setting.pattern is not None:
            raise UsageError(
                f"{setting.origin}: model can not be set for a model", fix=f"move it to [{DEFAULTS}]"
            )
        if setting.command not in (None, command) or setting.key not in keys:
            _check(setting, vocabulary())


def option_value(setting: Setting, parameter: Any) -> Any:
    """A file's value in the form that the option's parser takes: a text, a list of texts, or a truth for a switch.

    Raises:
        UsageError: a value of the wrong kind.
    """
    value = setting.value
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise _wrong(setting, "true or false")
        return value
    if parameter.multiple:
        return [_text(item, setting) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, list):
        return ",".join(_text(item, setting) for item in value)
    return _text(value, setting)


def default_model(setting: Setting | None) -> str | None:
    """The model that a file names.

    Raises:
        UsageError: it is no text.
    """
    if setting is None:
        return None
    if not isinstance(setting.value, str) or not setting.value:
        raise _wrong(setting, "owner/name or a folder")
    return setting.value


def check_alias(name: str, where: str) -> None:
    """Raise a UsageError for a short name that could be meant as a model, or can not be typed."""
    from llmcli.hub.models import BUNDLED_NAME

    if not name or name == BUNDLED_NAME or "/" in name or any(char.isspace() for char in name):
        raise UsageError(
            f"{where}: {quote(name) or 'an empty name'} can not be an alias",
            fix="an alias is one word without a slash, such as llama",
        )


def _check_target(setting: Setting) -> None:
    """Raise a UsageError for an alias of what is no model's name: in a chat it would be taken as a prompt."""
    from llmcli.hub.models import BUNDLED_NAME

    if isinstance(setting.value, dict):
        raise UsageError(
            f"{setting.origin}: {quote(setting.key)} is a table",
            fix='put a name with a dot in quotes: "llama3.1" = "owner/name"',
        )
    name = default_model(setting)
    if name != BUNDLED_NAME and "/" not in str(name):
        raise _wrong(setting, f"owner/name, {BUNDLED_NAME} or the path of a folder, such as ./llama")


def unknown_key(key: str, where: str, known: Keys) -> UsageError:
    """The error for a key that no option has."""
    positive = key.removeprefix("no-")
    if key in FLAGS_ONLY:
        fix = f"--{key} is given on the command line, each time"
    elif positive != key and positive in known:
        fix = f"write {positive} = false"
    else:
        fix = did_you_mean(key, known) or "`llmcli config show --all` lists the keys"
    return UsageError(f"{where}: unknown key {quote(key)}", fix=fix)


def _key(parameter: Any) -> str | None:
    if isinstance(parameter, TyperOption):
        name = long_name(parameter)
        if name == f"--{MODEL}" and parameter.envvar != MODEL_VARIABLE:
            return None  # the name of a model elsewhere, at a server
        return name[2:] if name.startswith("--") and name[2:] not in FLAGS_ONLY else None
    return MODEL if parameter.envvar == MODEL_VARIABLE else None


def _commands(group: TyperGroup, ctx: Any) -> Iterator[tuple[str, TyperCommand]]:
    names = getattr(group, "table", None) or group.list_commands(ctx)  # a table has forms of two words too
    for name in names:
        command: Any = group.get_command(ctx, name)
        if not getattr(command, "configurable", True):
            continue
        if isinstance(command, TyperGroup):
            yield from ((name, inner) for _, inner in _commands(command, ctx))
        else:
            yield name.split()[0], command


def _check(setting: Setting, vocabulary: Vocabulary) -> None:
    everything = {key: option for keys in vocabulary.values() for key, option in keys.items()}
    known: Keys | None = everything
    if setting.command is not None:
        known = vocabulary.get(setting.command)
    if known is None:
        near = did_you_mean(str(setting.command), [DEFAULTS, MODELS, ALIASES, *vocabulary])
        raise UsageError(
            f"{shown(setting.path)}: unknown section [{setting.section}]",
            fix=near
            or f'sections are [{DEFAULTS}], [{ALIASES}], [{MODELS}."owner/name"] and [COMMAND], such as [run]',
        )
    if setting.key in known or setting.key == MODEL:
        return
    if isinstance(setting.value, dict) and setting.pattern is not None:
        raise UsageError(
            f"{setting.origin}: {quote(setting.key)} is a table",
            fix=f'put the name of the model in quotes: [{MODELS}."{quote(setting.pattern)}/{quote(setting.key)}"]',
        )
    if setting.key in everything:
        owners = ", ".join(name for name, keys in vocabulary.items() if setting.key in keys)
        raise UsageError(f"{setting.origin}: {quote(setting.key)} is no option of it, but of: {owners}")
    raise unknown_key(setting.key, setting.origin, known)


def _text(value: object, setting: Setting) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _wrong(setting, "a text or a number")
    return str(value)


def _wrong(setting: Setting, wanted: str) -> UsageError:
    return UsageError(
        f"{quote(setting.key)} must be {wanted}, got {quote(_as_toml(setting.value))}",
        why=f"the value comes from {setting.origin}",
    )


def _as_toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
