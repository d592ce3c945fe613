"""What a setting may be: where KEY belongs in the file, and whether an option takes the value.

A value is checked as a flag would be: by the option's own parser, then by the range of the field it sets. Called by
`cli/config.py`.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any

import typer

from llmcli.cli.chat_options import AnswerOptions
from llmcli.cli.config_writer import Value
from llmcli.cli.form_options import FormOptions
from llmcli.cli.keys import (
    Keys,
    Vocabulary,
    check_alias,
    check_layers,
    default_model,
    option_value,
    unknown_key,
)
from llmcli.cli.layers import ALIASES, DEFAULTS, MODEL, MODELS, Layers, canonical
from llmcli.cli.options import EngineOptions, SamplingOptions
from llmcli.errors import UsageError, quote

NAME_FILES = ("json-schema", "grammar", "chat-template", "generation-config")
Section = tuple[str, ...]  # ("defaults",), ("run",), ("aliases",) or ("models", "owner/name")
Options = Mapping[str, Any]  # command -> its option


def every_key(vocabulary: Vocabulary) -> dict[str, Any]:
    """The keys of all commands together; of one that several have, the option of the first of them."""
    return {key: parameter for keys in reversed(list(vocabulary.values())) for key, parameter in keys.items()}


def check_files(ctx: typer.Context, layers: Layers, vocabulary: Vocabulary) -> None:
    """Check every key and value of the files, whichever command they are for.

    Raises:
        UsageError: the first that is wrong.
    """
    check_layers(layers, "", {}, lambda: vocabulary)
    for setting in chain.from_iterable(layers):
        if setting.command == ALIASES:
            continue
        if setting.key == MODEL:
            default_model(setting)
            continue
        options = _options(setting.key, setting.command, vocabulary)
        try:
            _check(ctx, setting.key, options, partial(option_value, setting))
        except UsageError as error:
            error.why = error.why or f"the value comes from {setting.origin}"
            raise


def find_place(key: str, model: str | None, vocabulary: Vocabulary) -> tuple[Section, str, Options]:
    """Section, key and options that `KEY`, `COMMAND.KEY` or `aliases.NAME` stand for; what names a model has no option.

    Raises:
        UsageError: there is no such key, or it has no place there.
    """
    if key.startswith(f"{ALIASES}."):
        name = key.removeprefix(f"{ALIASES}.")
        check_alias(name, key)
        if model is not None:
            raise UsageError("an alias can not be set for a model", fix="leave --model out")
        return (ALIASES,), name, {}
    command, dot, name = key.rpartition(".")
    name = canonical(name)
    if dot and command not in vocabulary:
        raise UsageError(f"{quote(key)} is not KEY or COMMAND.KEY")
    if model is not None and dot:
        raise UsageError(f"{quote(key)} is for one command, --model for all", fix="leave one of them")
    if model is not None and name == MODEL:
        raise UsageError("model can not be set for a model", fix="leave --model out")
    options = _options(name, command if dot else None, vocabulary)
    if name != MODEL and not options:
        known: Keys = vocabulary[command] if dot else every_key(vocabulary)
        raise unknown_key(name, f"[{command}]" if dot else "config", known)
    section = (MODELS, model) if model is not None else (command,) if dot else (DEFAULTS,)
    return section, name, options


def checked_value(ctx: typer.Context, key: str, options: Options, texts: list[str]) -> Value:
    """The value to write: a truth or a number where the option takes one, else the text.

    Raises:
        UsageError: an option does not take it.
    """
    if key == MODEL or not options:  # those of aliases have none
        return _checked_model(" ".join(texts))
    if all(option.multiple for option in options.values()):
        _check(ctx, key, options, lambda option: texts)
        return texts
    if len(texts) > 1:
        raise UsageError(f"{key} takes one value, got {len(texts)}", fix="put a text with spaces in quotes")
    if key in NAME_FILES:
        texts = [_whole_path(texts[0])]
    value = _check(ctx, key, options, lambda option: texts[0])
    if isinstance(value, bool):
        return value
    return _number(texts[0]) if isinstance(value, int | float) else texts[0]


def _whole_path(text: str) -> str:
    """What names a file, with its whole path, as the setting counts in every working folder."""
    name = text.removeprefix("@")
    path = os.path.expanduser(name)
    return text.removesuffix(name) + os.path.abspath(path) if os.path.isfile(path) else text


def _options(key: str, command: str | None, vocabulary: Vocabulary) -> Options:
    return {name: keys[key] for name, keys in vocabulary.items() if key in keys and command in (None, name)}


def _check(ctx: typer.Context, key: str, options: Options, given: Callable[[Any], Any]) -> Any:
    """What the options of that name make of a value; one for all commands must suit each that has the option.

    Args:
        given: the value, as an option takes it.

    Raises:
        UsageError: a wrong value.
    """
    taken: dict[str, Any] = {}
    refused: list[UsageError] = []
    for command, option in options.items():
        try:
            taken[command] = _accept(ctx, option, given(option))
        except UsageError as error:
            refused.append(error)
    if refused:
        for command in taken:
            refused[0].fix = f"for `llmcli {command}` alone it is {command}.{key}"
        raise refused[0]
    return next(iter(taken.values()))


def _accept(ctx: typer.Context, option: Any, given: Any) -> Any:
    try:
        value = option.process_value(ctx, given)
    except typer.BadParameter as error:
        said = error.message.removeprefix("Value error, ")  # Typer passes pydantic's wording on
        raise UsageError(f"{option.opts[0]}{'' if said.startswith('must') else ':'} {said}") from None
    _check_alone(option.name, value)
    return value


def _check_alone(name: str, value: Any) -> None:
    """Check the value of an option by the bundle that has it; one of no bundle has no range.

    Raises:
        UsageError, RequestError: it is out of range, or wrong in itself.
    """
    checks: dict[Any, Callable[[Any], object]] = {
        SamplingOptions: SamplingOptions.overrides,
        EngineOptions: EngineOptions.config,
        FormOptions: lambda given: given.form({}),
        AnswerOptions: AnswerOptions.check,
    }
    for bundle, check in checks.items():
        if name in {field.name for field in dataclasses.fields(bundle)}:
            check(bundle(**{name: value}))


def _number(text: str) -> int | float | str:
    """A number as TOML has it; one with a unit, such as 8k, stays a text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _checked_model(name: str) -> str:
    """A model's name; a folder with its whole path, as the setting counts in every working folder."""
    from llmcli.hub.models import BUNDLED_NAME
    from llmcli.hub.names import parse_hub_id

    if os.path.isdir(name):
        return os.path.abspath(name)
    return name if name == BUNDLED_NAME else str(parse_hub_id(name))
