"""Chat templates: messages in, the text that the model was trained on out, as transformers renders it.

Owns which template is chosen, what it is given, and how its failures are told. Knows nothing of tokens; the
limits on what a template may do are in `text/sandbox.py`. Called by `text/tokenizer.py`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError

from llmcli.errors import CheckpointError, LLMCliError, RequestError, quote
from llmcli.text.messages import plain_json, plain_messages
from llmcli.text.sandbox import SandboxedTemplate, TemplateLimitError, TemplateRefusal, template_line

_CONTINUE = "<the message goes on here> "
"""Stands at the end of a message that is to be continued. Its last space tells whether the template trims."""

RESERVED = ("messages", "tools", "documents", "add_generation_prompt")


class ChatTemplate:
    """The chat template of a model.

    Args:
        source: the template; or several, as a mapping of name to template, or as a list of {"name",
            "template"}. `tool_use` is taken when tools are given, else `default`.
        special_tokens: what the template sees as `bos_token`, `eos_token` and so on.

    Raises:
        CheckpointError: `source` has none of these forms, or lacks a default.
    """

    def __init__(self, source: object, special_tokens: Mapping[str, str]) -> None:
        self._templates = {name: SandboxedTemplate(text) for name, text in _by_name(source).items()}
        self._special_tokens = dict(special_tokens)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a chat that `check_messages` has passed.

        Args:
            add_generation_prompt: end with the opening of the assistant's answer; not done when continuing.
            continue_final_message: end within the last message, so that the model goes on with it.
            tools: JSON descriptions of functions.
            template_kwargs: further variables of the template, such as `enable_thinking`.

        Raises:
            RequestError: the template refuses these messages, or a variable is not for the caller to set.
            CheckpointError: the template is broken, forbidden or too costly; names the line.
        """
        return self.render_plain(
            plain_messages(messages),
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=plain_json(tools, "tools"),
            template_kwargs=plain_json(template_kwargs, "chat_template_kwargs"),
        )

    def render_plain(
        self,
        messages: list[dict[str, Any]],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
        tools: list[dict[str, Any]] | None,
        template_kwargs: dict[str, Any] | None,
    ) -> str:
        """As `render`, for values that are in their plain form already (`plain_messages`, `plain_json`)."""
        extra = template_kwargs or {}
        for name in extra:
            if name in RESERVED or name in self._special_tokens:
                raise RequestError(
                    f"template variable {quote(name)} can not be set", param="chat_template_kwargs"
                )
        if continue_final_message:
            last = messages[-1]
            messages = [*messages[:-1], last | {"content": last.get("content", "") + _CONTINUE}]
        name = "tool_use" if tools is not None and "tool_use" in self._templates else "default"
        variables = {
            **self._special_tokens,
            **extra,
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt and not continue_final_message,
        }
        text = _run(self._templates[name], variables)
        return _cut(text) if continue_final_message else text

    def check(self) -> None:
        """Compile the template.

        Raises:
            CheckpointError: it is no template, or does what is forbidden; names the line.
        """
        for template in self._templates.values():
            try:
                template.compile()
            except Exception as error:
                raise _broken(error) from None

    @cached_property
    def supports_system(self) -> bool:
        """Whether a system message appears in what the template writes."""
        chat = [{"role": "system", "content": "be brief 4821"}, {"role": "user", "content": "hello"}]
        try:
            return "be brief 4821" in self.render(chat)
        except LLMCliError:
            return False


def _by_name(source: object) -> dict[str, str]:
    if isinstance(source, str):
        return {"default": source}
    if isinstance(source, list):
        source = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, Mapping)}
    if isinstance(source, Mapping) and all(isinstance(item, str) for pair in source.items() for item in pair):
        if "default" not in source:
            named = ", ".join(quote(name, 40) for name in source)
            raise CheckpointError(f"chat_template has no template named default, only: {named}")
        return dict(source)
    raise CheckpointError(f"chat_template must be a string or named strings, got {quote(source, 80)}")


def _cut(text: str) -> str:
    """The text up to where the last message is to go on."""
    position = text.rfind(_CONTINUE.strip())
    if position < 0:
        raise RequestError(
            "the model's chat template does not write the last message, so it can not be continued",
            param="messages",
        )
    trimmed = not text.startswith(_CONTINUE, position)
    return text[:position].rstrip() if trimmed else text[:position]


def _run(template: SandboxedTemplate, variables: Mapping[str, Any]) -> str:
    try:
        return template.render(variables)
    except TemplateRefusal as refusal:
        raise RequestError(
            f"the model's chat template refuses these messages: {quote(str(refusal))}", param="messages"
        ) from None
    except Exception as error:
        # A template is a program by a stranger: whatever it raises is its fault, and no traceback helps the
        # user.
        raise _broken(error) from None


def _broken(error: Exception) -> CheckpointError:
    line = template_line(error)
    place = "chat_template" if line is None else f"chat_template line {line}"
    return CheckpointError(f"{place} {_cause(error)}")


def _cause(error: Exception) -> str:
    detail = quote(str(error)) or type(error).__name__
    if isinstance(error, TemplateLimitError):
        return detail
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"is not a valid template: {detail}"
    if isinstance(error, SecurityError):
        return f"does what is forbidden: {detail}"
    if isinstance(error, OverflowError) and "MAX_RANGE" in detail:
        return f"loops too long: {detail}"
    return f"fails: {detail}"
