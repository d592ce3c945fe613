"""What a model's chat template can do, found out by rendering it: a system prompt, tools, a switch for thinking.

Nothing is guessed from its source but whether answers may hold a thinking block. Called by `llmcli show`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmcli.errors import LLMCliError
from llmcli.text.chat_template import ChatTemplate
from llmcli.text.tokenizer_files import named_tokens, read_config, read_template_source

_HELLO = [{"role": "user", "content": "hello"}]
_TOOL = {
    "type": "function",
    "function": {
        "name": "probe_4821",
        "description": "a probe",
        "parameters": {"type": "object", "properties": {}},
    },
}
_MARKS = ("<think>", "reasoning_content", "<|channel|>")


@dataclass(frozen=True, slots=True)
class TemplateKind:
    """What a template writes.

    Attributes:
        system: a system message.
        tools: the functions that a request offers.
        thinking: "switch" (enable_thinking turns it on and off), "yes" (it knows of thinking), or "no".
    """

    system: bool
    tools: bool
    thinking: Literal["switch", "yes", "no"]


def read_template(folder: Path) -> object | None:
    """The source of the chat template of a model folder: one, or several by name; None where there is none.

    Raises:
        CheckpointError: a file is broken.
    """
    return read_template_source(folder, read_config(folder))


def template_kind(folder: Path) -> TemplateKind | None:
    """What the chat template of a model folder can do; None where there is none.

    Raises:
        CheckpointError: a file is broken, or the template is no template.
    """
    config = read_config(folder)
    source = read_template_source(folder, config)
    if source is None:
        return None
    template = ChatTemplate(source, named_tokens(config))
    return TemplateKind(
        system=template.supports_system,
        tools="probe_4821" in _render(template, tools=[_TOOL]),
        thinking=_thinking(template, str(source)),
    )


def _thinking(template: ChatTemplate, source: str) -> Literal["switch", "yes", "no"]:
    with_it, without = (
        _render(template, template_kwargs={"enable_thinking": wanted}) for wanted in (True, False)
    )
    if with_it != without:
        return "switch"
    return "yes" if any(mark in source for mark in _MARKS) else "no"


def _render(template: ChatTemplate, **arguments: Any) -> str:
    """What the template writes, or nothing where it fails."""
    try:
        return template.render(_HELLO, **arguments)
    except LLMCliError:
        return ""
