"""From a request of a prompt file to the token ids that the engine takes.

Decides between the chat template and raw text, and lays system prompts. Knows the tokenizer's interface, no
file and no engine; `batch.py` calls `PromptEncoder.encode` when it admits a request.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from llmcli.errors import RequestError, UsageError
from llmcli.jobs.batch_requests import BatchRequest, Message


class Tokenizer(Protocol):
    """What is needed of `llmcli.text.tokenizer.Tokenizer`."""

    @property
    def chat_template(self) -> Any: ...

    def encode(self, text: str) -> list[int]: ...

    def encode_chat(self, messages: Sequence[Message]) -> list[int]: ...


class PromptEncoder:
    """Encodes requests for one model.

    Args:
        tokenizer: the model's.
        raw: True sends text prompts as they are, False through the chat template, None as the model allows.
        system: system prompt of requests that have none of their own.

    Raises:
        UsageError: the chat template is wanted, and the model has none.
    """

    def __init__(self, tokenizer: Tokenizer, *, raw: bool | None = None, system: str | None = None) -> None:
        has_template = tokenizer.chat_template is not None
        if not has_template and raw is False:
            raise UsageError("--chat: this model has no chat template", fix="leave --chat out")
        if not has_template and system is not None:
            raise UsageError(
                "--system: this model has no chat template to put it in", fix="leave --system out"
            )
        self._tokenizer = tokenizer
        self._has_template = has_template
        self._system = system
        self.raw = raw if raw is not None else not has_template

    def describe(self) -> str:
        """One line that says how text prompts are sent."""
        if not self.raw:
            return "text prompts go through the model's chat template (--raw sends them as they are)"
        why = "" if self._has_template else ": the model has no chat template"
        return f"text prompts are sent as they are{why}"

    def encode(self, request: BatchRequest) -> list[int]:
        """Token ids of the prompt.

        Raises:
            RequestError: the template refuses the messages, or the model has none.
        """
        prompt = request.prompt
        if not isinstance(prompt, str):
            ids: list[Any] = list(prompt)
            return ids if request.kind == "token_ids" else self._encode_chat(ids, request.system)
        if request.endpoint is None and not self.raw:
            return self._encode_chat([{"role": "user", "content": prompt}], request.system)
        if request.system:
            raise RequestError("system needs a chat template, and this model has none", param="system")
        return self._tokenizer.encode(prompt)

    def _encode_chat(self, messages: list[Message], own_system: str | None) -> list[int]:
        if not self._has_template:
            raise RequestError(
                "messages need a chat template, and this model has none",
                fix='give the whole text as {"prompt": "..."}',
                param="messages",
            )
        system = self._system if own_system is None else own_system
        if system and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        return self._tokenizer.encode_chat(messages)
