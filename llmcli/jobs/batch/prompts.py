"""From a request of a prompt file to the token ids that the engine takes.

Decides between the chat template and raw text, lays system prompts, and gives out what tells the reasoning in the
answers. Knows the tokenizer's interface, no file and no engine; `batch.py` asks for each request that it admits.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from llmcli.errors import RequestError, UsageError
from llmcli.jobs.batch.requests import BatchRequest, Message
from llmcli.structured import StructuredOutput
from llmcli.text.reasoning import ReasoningMarks, ReasoningSplitter

MARK_TOKENS = 32  # more than the opening of reasoning and the white space after it have


class Tokenizer(Protocol):
    """What is needed of `llmcli.text.tokenizer.Tokenizer`."""

    @property
    def chat_template(self) -> Any: ...

    @property
    def reasoning(self) -> ReasoningMarks: ...

    def encode(self, text: str) -> list[int]: ...

    def encode_chat(
        self, messages: Sequence[Message], *, template_kwargs: Mapping[str, Any] | None = None
    ) -> list[int]: ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str: ...


class PromptEncoder:
    """Encodes requests for one model.

    Args:
        tokenizer: the model's.
        raw: True sends text prompts as they are, False through the chat template, None as the model allows.
        system: system prompt of requests that have none of their own.
        template_kwargs: variables for the chat template.

    Raises:
        UsageError: the chat template is wanted, and the model has none.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        raw: bool | None = None,
        system: str | None = None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
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
        self._template_kwargs = template_kwargs or None
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
        if self._is_chat(request):
            return self._encode_chat([{"role": "user", "content": prompt}], request.system)
        if request.system:
            raise RequestError("system needs a chat template, and this model has none", param="system")
        return self._tokenizer.encode(prompt)

    def splitters(
        self, request: BatchRequest, prompt_ids: Sequence[int], count: int
    ) -> list[ReasoningSplitter]:
        """What tells reasoning from answer, for each of `count` choices; none for a raw prompt."""
        if not self._is_chat(request):
            return []
        inside = self._opens_reasoning(prompt_ids)
        return [ReasoningSplitter(self._tokenizer.reasoning, inside=inside) for _ in range(count)]

    def placed(
        self, form: StructuredOutput, request: BatchRequest, prompt_ids: Sequence[int]
    ) -> StructuredOutput:
        """The form of a request's answer, behind the reasoning that comes first in a chat."""
        if not self._is_chat(request):
            return form
        marks = self._tokenizer.reasoning
        if self._opens_reasoning(prompt_ids):
            return form.behind(marks.closing)
        return form.behind_any(marks.opening, marks.closing)

    def _opens_reasoning(self, prompt_ids: Sequence[int]) -> bool:
        end = self._tokenizer.decode(prompt_ids[-MARK_TOKENS:], skip_special_tokens=False)
        return self._tokenizer.reasoning.open_at_end(end)

    def _is_chat(self, request: BatchRequest) -> bool:
        """Whether a request goes through the chat template."""
        is_text = request.kind == "text" and request.endpoint is None and not self.raw
        return is_text or request.kind == "messages"

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
        return self._tokenizer.encode_chat(messages, template_kwargs=self._template_kwargs)
