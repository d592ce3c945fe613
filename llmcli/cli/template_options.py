"""The options of chat and run that stand in for a model's own files: its chat template and its sampling defaults.

What is wrong with them is told before a model is looked for. Imports nothing heavy until it reads a template.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from llmcli.config import Substitutes
from llmcli.errors import CheckpointError, UsageError, quote
from llmcli.ui.parameters import FLAG

TEMPLATE = "Chat template and defaults"
MAX_TEMPLATE_BYTES = 1 << 20
MAX_DEFAULTS_BYTES = 16 << 20
OF_THE_MODEL, NO_DEFAULTS = "auto", "none"
EXAMPLE = '{"enable_thinking": false}'


@dataclass(frozen=True, kw_only=True)
class TemplateOptions:
    """What is used in place of a model's own files."""

    chat_template: Annotated[
        str | None,
        typer.Option(
            "--chat-template",
            metavar="FILE",
            show_default=False,
            help="Lay out chats with this Jinja template, in place of the model's own; as sandboxed as that.",
            rich_help_panel=TEMPLATE,
        ),
    ] = None
    chat_template_kwargs: Annotated[
        str | None,
        typer.Option(
            "--chat-template-kwargs",
            metavar="JSON",
            show_default=False,
            help="Variables for the chat template, such as '{\"enable_thinking\": false}'.",
            rich_help_panel=TEMPLATE,
        ),
    ] = None
    generation_config: Annotated[
        str,
        typer.Option(
            "--generation-config",
            metavar="auto|none|FILE",
            help="Sampling defaults: those of the model (auto), none of them, or those of a generation_config.json.",
            rich_help_panel=TEMPLATE,
        ),
    ] = OF_THE_MODEL

    def substitutes(self) -> Substitutes:
        """What an engine is to be built with.

        Raises:
            UsageError: a file can not be read or is not what it should be; or the variables are no JSON object.
        """
        return Substitutes(
            chat_template=None if self.chat_template is None else _read_template(self.chat_template),
            template_kwargs=_read_variables(self.chat_template_kwargs),
            generation_defaults=self._defaults(),
        )

    def _defaults(self) -> dict[str, Any] | None:
        name = self.generation_config
        return None if name == OF_THE_MODEL else {} if name == NO_DEFAULTS else _read_defaults(name)

    def refuse_with_a_server(self, origins: Mapping[str, str]) -> None:
        """Raise a UsageError for what is typed and only a model of this process can be given.

        Args:
            origins: field -> where its value comes from; what is in a file is for the models of this machine.
        """
        if self.chat_template is not None and origins.get("chat_template") == FLAG:
            raise UsageError(
                "--chat-template can not be used with --url: the template is with the server",
                fix="leave it out; --chat-template-kwargs is sent",
            )
        if self.generation_config == NO_DEFAULTS and origins.get("generation_config") == FLAG:
            raise UsageError(
                "--generation-config none can not be used with --url: a server has its own defaults",
                fix="set what matters, such as --top-p 1",
            )

    @property
    def any_template(self) -> str | None:
        """The first option that needs a chat template; None where none does."""
        if self.chat_template is not None:
            return "--chat-template"
        return "--chat-template-kwargs" if _read_variables(self.chat_template_kwargs) else None


def _read_template(name: str) -> str:
    from llmcli.text.chat_template import ChatTemplate

    try:
        source = _read(name, "--chat-template", MAX_TEMPLATE_BYTES).decode("utf-8-sig")
        ChatTemplate(source, {}).check()
    except UnicodeDecodeError as error:
        raise UsageError(f"--chat-template {quote(name)} is not UTF-8 at byte {error.start + 1}") from None
    except CheckpointError as error:
        raise UsageError(f"--chat-template {quote(name)}: {error.what}") from None
    if not source.strip():
        raise UsageError(f"--chat-template {quote(name)} is empty")
    return source


def _read_variables(text: str | None) -> Mapping[str, Any]:
    if text is None:
        return {}
    from llmcli import strict_json
    from llmcli.text.chat_template import RESERVED

    option = "--chat-template-kwargs"
    fix = f"{option} '{EXAMPLE}'"
    try:
        value = strict_json.loads(text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise UsageError(f"{option} is not JSON: {quote(str(error))}", fix=fix) from None
    if not isinstance(value, dict):
        raise UsageError(f"{option} must be a JSON object, got {quote(text, 80)}", fix=fix)
    for variable in value:
        if variable in RESERVED:
            raise UsageError(f"{option} can not set {quote(variable)}", why="it is what the chat consists of")
    return value


def _read_defaults(name: str) -> dict[str, Any]:
    from llmcli import strict_json
    from llmcli.model.generation_config import sampling_fields

    option = "--generation-config"
    try:
        value = strict_json.loads(_read(name, option, MAX_DEFAULTS_BYTES))
        if not isinstance(value, dict):
            raise ValueError("it is no object")
        fields, errors = sampling_fields(value)
    except ValueError as error:
        raise UsageError(f"{option} {quote(name)} is not such a file: {quote(str(error))}") from None
    if errors:
        raise UsageError(f"{option} {quote(name)}: {errors[0].what}")
    return fields


def _read(name: str, option: str, limit: int) -> bytes:
    """The content of a file, of at most `limit` bytes.

    Raises:
        UsageError: there is none, or it is larger.
    """
    path = os.path.expanduser(name)
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "is no name for a file"
        raise UsageError(f"{option} {quote(name)} can not be read: {quote(reason)}") from None
    if len(data) > limit:
        raise UsageError(f"{option} {quote(name)} has more than {limit:,} bytes")
    return data
