"""The options of chat and run that say which form an answer must have; one of them counts.

What is wrong with it is told before a model is looked for. Imports nothing heavy until one is given.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import typer

from llmcli.cli.layers import Setting
from llmcli.errors import RequestError, UsageError
from llmcli.structured import StructuredOutput, read_form
from llmcli.ui.parameters import FLAG

FORM = "Form of the answer"
ENVIRONMENT = "environment variable"  # how such an origin begins
FLAG_STRENGTH = 2


@dataclass(frozen=True, kw_only=True)
class FormOptions:
    """The form of an answer."""

    json_schema: Annotated[
        str | None,
        typer.Option(
            "--json-schema",
            "-j",
            metavar="SCHEMA|@FILE",
            show_default=False,
            help="""Answer in JSON of this schema, such as '{"type": "object"}'; {} is any JSON object.""",
            rich_help_panel=FORM,
        ),
    ] = None
    regex: Annotated[
        str | None,
        typer.Option(
            "--regex",
            metavar="PATTERN",
            show_default=False,
            help="Answer in a text that this matches as a whole, such as '(yes|no): .{1,80}'.",
            rich_help_panel=FORM,
        ),
    ] = None
    choice: Annotated[
        list[str] | None,
        typer.Option(
            "--choice",
            metavar="TEXT",
            show_default=False,
            help="Answer with this text, or with one of several: repeat it.",
            rich_help_panel=FORM,
        ),
    ] = None
    grammar: Annotated[
        str | None,
        typer.Option(
            "--grammar",
            metavar="GRAMMAR|@FILE",
            show_default=False,
            help="Answer in the language of a grammar in GBNF or Lark's form.",
            rich_help_panel=FORM,
        ),
    ] = None

    def form(self, origins: Mapping[str, str]) -> StructuredOutput | None:
        """The form that is asked for, read and compiled once.

        Args:
            origins: field -> where its value comes from; FLAG for one that is not in it.

        Raises:
            RequestError: it is wrong, or there are two.
            UsageError: the file of a schema or grammar can not be read.
        """
        name = self.chosen(origins)
        if name is None:
            return None
        from llmcli.text.grammar import check_form
        from llmcli.ui.forms import grammar_text, schema_text

        value = getattr(self, name)
        option = _option(name)
        if isinstance(value, str) and not value.strip():
            raise RequestError(f"{option} is empty", param=name)
        try:
            if name == "json_schema":
                value = schema_text(value)
            elif name == "grammar":
                value = grammar_text(value)
            form = read_form({name: value})
            if form is not None:
                check_form(form)
        except RequestError as error:
            rest = error.what.removeprefix(name)
            what = option + (rest if rest != error.what else f": {rest}")
            raise RequestError(what, why=error.why, fix=error.fix, param=name) from None
        except UsageError as error:
            raise UsageError(f"{option} {error.what}", why=error.why, fix=error.fix) from None
        return form

    def chosen(self, origins: Mapping[str, str]) -> str | None:
        """The field in force: a flag goes before the environment, and that before a file. None if none is given.

        Raises:
            UsageError: two are given in the same way.
        """
        names = [field.name for field in dataclasses.fields(self)]
        given = {name: origins.get(name, FLAG) for name in names if getattr(self, name) not in (None, [], ())}
        strongest = max(map(_strength, given.values()), default=0)
        found = [name for name in given if _strength(given[name]) == strongest]
        if len(found) > 1:
            told = [f"{_option(name)} comes from {given[name]}" for name in found]
            raise UsageError(
                f"{_option(found[0])} and {_option(found[1])} are both given: an answer has one form",
                why="" if strongest == FLAG_STRENGTH else "\n".join(told),
                fix="keep one of them",
            )
        return found[0] if found else None


def drop_weaker_forms(settings: dict[str, Setting]) -> None:
    """Of forms in different sections of configuration files leave those of the strongest.

    Args:
        settings: by key, the weakest first.
    """
    keys = {_option(field.name).removeprefix("--") for field in dataclasses.fields(FormOptions)}
    given = [setting for key, setting in settings.items() if key in keys]
    for setting in given:
        if setting.origin != given[-1].origin:
            del settings[setting.key]


def _strength(origin: str) -> int:
    return FLAG_STRENGTH if origin == FLAG else 1 if origin.startswith(ENVIRONMENT) else 0


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
