"""A model behind an OpenAI-compatible server, with what a chat needs of one.

What needs the tokenizer is not available here, and says so. Made by `cli/chat.py` for `--url`; HTTP is
`server.py`'s, the reading of answers `remote/stream.py`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from llmcli.errors import ModelNotFoundError, RequestError, quote
from llmcli.nearest import did_you_mean
from llmcli.sampling import SamplingParams
from llmcli.structured import StructuredOutput, response_format
from llmcli.text.reasoning import ReasoningSplitter
from llmcli.ui.conversation import ChatPrompt, FittedPrompt
from llmcli.ui.remote.server import Server
from llmcli.ui.remote.stream import RemoteStream
from llmcli.ui.thinking_budget import ThinkingBudget

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine

T = TypeVar("T")
SENT = ("role", "content")  # no reasoning of earlier turns: templates drop it, and some servers refuse it
# `owned_by` in a server's list of models -> its field of a request that limits the tokens of reasoning.
BUDGET_FIELDS = {"vllm": "thinking_token_budget", "llamacpp": "thinking_budget_tokens"}


class RemoteBackend:
    """One model of a server.

    Args:
        model: its entry in the server's list.
    """

    def __init__(self, server: Server, model: Mapping[str, Any]) -> None:
        self.warnings: Sequence[str] = ()
        self._server = server
        self._model = model

    @property
    def name(self) -> str:
        """The model's name."""
        return str(self._model["id"])

    @property
    def max_model_len(self) -> int | None:
        """The context, where the server tells it (vLLM does)."""
        length = self._model.get("max_model_len")
        return length if type(length) is int and length > 0 else None

    @property
    def remembers(self) -> bool:
        """The server has the template; one without refuses the request."""
        return True

    @property
    def generation_defaults(self) -> Mapping[str, Any] | None:
        """None: servers do not tell, and what is not set is left to them."""
        return None

    @property
    def can_think(self) -> bool:
        """Not told by servers; one that does not know the switch leaves it."""
        return True

    @property
    def can_limit_thinking(self) -> bool:
        """Whether the server is one of those that have a field for it."""
        return str(self._model.get("owned_by")) in BUDGET_FIELDS

    def params(self, overrides: Mapping[str, Any]) -> SamplingParams:
        """What is set, over built-in values that only stand for the server's own."""
        return SamplingParams(**{name: value for name, value in overrides.items() if value is not None})

    def encode(self, chat: ChatPrompt) -> Sequence[int] | None:
        """None: only the server can count."""
        return None

    def splitter(self, prompt: FittedPrompt) -> ReasoningSplitter:
        """Reasoning stands between <think> and </think>: servers set it apart, or leave it so."""
        return ReasoningSplitter()

    def submit(
        self, prompt: FittedPrompt, overrides: Mapping[str, Any], thinking: ThinkingBudget | None = None
    ) -> RemoteStream:
        """The answer; nothing is sent before it is read."""
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [{name: message[name] for name in SENT} for message in prompt.chat.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for name, value in overrides.items():
            if isinstance(value, StructuredOutput):
                body["response_format"] = told_form(value)
            elif value is not None:
                body[name] = list(value) if isinstance(value, tuple) else value
        if "logprobs" in body:
            body |= {"logprobs": True, "top_logprobs": overrides["logprobs"]}
        if prompt.chat.continues:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if prompt.chat.template_kwargs:
            body["chat_template_kwargs"] = dict(prompt.chat.template_kwargs)
        if thinking is not None:
            body[BUDGET_FIELDS[str(self._model["owned_by"])]] = thinking.num_tokens
        return RemoteStream(self._server, body)

    def with_engine(self, job: Callable[["Engine"], T]) -> T:
        """Not available."""
        raise RequestError(
            "the engine is with the server", fix=f"llmcli bench serve --base-url {quote(self._server.url)}"
        )

    def describe(self) -> list[tuple[str, str]]:
        """What is known of the model from here."""
        length = self.max_model_len
        return [
            ("model", self.name),
            ("server", self._server.url),
            ("context", "not told by the server" if length is None else f"{length:,} tokens"),
        ]

    def pieces(self, text: str) -> list[tuple[int, str]]:
        """Not available."""
        raise _not_here("tokens can not be shown")

    def show_prompt(self, token_ids: Sequence[int] | None) -> str:
        """Not available."""
        raise _not_here("the prompt can not be shown")

    def template(self) -> str | None:
        """Not available."""
        raise _not_here("the chat template can not be shown")

    def license(self) -> str | None:
        """Not available."""
        raise RequestError("a server does not tell the licence of its model")

    def close(self) -> None:
        """Nothing is held between answers."""


def told_form(form: StructuredOutput) -> dict[str, Any]:
    """The form of an answer as a server is told it, in OpenAI's words.

    Raises:
        RequestError: it has none.
    """
    body = response_format(form)
    if body is None:
        raise RequestError(
            f"a server is told JSON schemas only, not {quote(str(form))}",
            fix="/json or --json-schema works; /regex off takes the form back; without --url all forms work",
        )
    return body


def _not_here(what: str) -> RequestError:
    return RequestError(
        f"{what}: the model's tokenizer is with the server",
        fix="chat without --url to run the model in this process",
    )


def choose_model(models: Sequence[Mapping[str, Any]], name: str | None, url: str) -> Mapping[str, Any]:
    """The entry of the model with this name, or the first.

    Raises:
        ModelNotFoundError: the server has no model of this name.
    """
    if name is None:
        return models[0]
    for model in models:
        if model["id"] == name:
            return model
    ids = [str(model["id"]) for model in models]
    listed = ", ".join(quote(known, 60) for known in ids[:8])
    raise ModelNotFoundError(
        f"{quote(url)} has no model {quote(name, 80)}",
        why=f"it has {listed}" + (f" and {len(ids) - 8} more" if len(ids) > 8 else ""),
        fix=did_you_mean(name, ids),
    )
