"""What a chat needs of a model, and the model of this process that gives it.

`Backend` is the border: `LocalBackend` is an engine in this process (the only place of the chat that touches
one), `remote/backend.py` a running server. Made by `load_backend` in the loader's thread, used by the session
and the single answer.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from llmcli.config import EngineConfig, ResolvedConfig, Substitutes
from llmcli.hub.licence import licence_text
from llmcli.hub.models import LocalModel
from llmcli.model.spec import AwqSpec
from llmcli.sampling import SamplingParams
from llmcli.structured import StructuredOutput
from llmcli.text.reasoning import ReasoningSplitter
from llmcli.ui.answer_stream import AnswerStream
from llmcli.ui.conversation import ChatPrompt, FittedPrompt
from llmcli.ui.thinking_budget import BudgetedStream, Closing, ThinkingBudget

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine
    from llmcli.engine.stream import EngineThread

T = TypeVar("T")

THINK_SWITCH = "enable_thinking"
"""The template variable by which most models that can think are told to, or not to."""


MARK_TOKENS = 32  # more than the opening of reasoning and the white space after it have


class Backend(Protocol):
    """A model that can chat.

    Attributes:
        warnings: what the user should know about how it was loaded.
    """

    warnings: Sequence[str]

    @property
    def name(self) -> str:
        """The model's name as shown."""
        ...

    @property
    def max_model_len(self) -> int | None:
        """Tokens that prompt and answer may take together, as far as that is known."""
        ...

    @property
    def remembers(self) -> bool:
        """Whether the model can be shown a conversation: it has a chat template."""
        ...

    @property
    def generation_defaults(self) -> Mapping[str, Any] | None:
        """Sampling fields that the model brings along; None where a server has them, and does not tell."""
        ...

    def params(self, overrides: Mapping[str, Any]) -> SamplingParams:
        """The parameters of an answer, with `overrides` on top of the defaults."""
        ...

    def encode(self, chat: ChatPrompt) -> Sequence[int] | None:
        """Token ids of a prompt; None where only a server knows them.

        Raises:
            RequestError: the chat template refuses the messages.
        """
        ...

    def splitter(self, prompt: FittedPrompt) -> ReasoningSplitter:
        """Tells reasoning from answer in what the model says to a prompt."""
        ...

    def submit(
        self, prompt: FittedPrompt, overrides: Mapping[str, Any], thinking: ThinkingBudget | None = None
    ) -> AnswerStream:
        """Start an answer.

        Args:
            thinking: when its reasoning is closed, if that can be limited.

        Raises:
            LLMCliError: it can not be given; a server may say so only once the stream is read.
        """
        ...

    def with_engine(self, job: Callable[["Engine"], T]) -> T:
        """Do something with the engine itself, while nothing is answered.

        Raises:
            RequestError: the engine is not here.
        """
        ...

    def describe(self) -> list[tuple[str, str]]:
        """Rows of label and value: the model, how it runs, and the prefix cache."""
        ...

    def pieces(self, text: str) -> list[tuple[int, str]]:
        """Token ids and texts of a text.

        Raises:
            RequestError: the tokenizer is not here.
        """
        ...

    def show_prompt(self, token_ids: Sequence[int] | None) -> str:
        """The text of a prompt as the model sees it, with control tokens in ⟦ ⟧.

        Raises:
            RequestError: the tokenizer is not here.
        """
        ...

    def template(self) -> str | None:
        """The source of the chat template.

        Raises:
            RequestError: it is not here.
        """
        ...

    def license(self) -> str | None:
        """The licence text, or its name, as far as the model brings one.

        Raises:
            RequestError: it is not here.
        """
        ...

    @property
    def can_think(self) -> bool:
        """Whether thinking can be switched on and off."""
        ...

    @property
    def can_limit_thinking(self) -> bool:
        """Whether reasoning can be closed after some number of tokens."""
        ...

    def close(self) -> None:
        """Let go of the model."""
        ...


class LocalBackend:
    """The in-process engine, driven by its worker thread.

    Args:
        chat_template: the source of the template that is used in place of the model's own.
    """

    def __init__(
        self,
        engine: "Engine",
        thread: "EngineThread",
        warnings: Sequence[str] = (),
        chat_template: str | None = None,
    ) -> None:
        self._engine = engine
        self._chat_template = chat_template
        self._thread = thread
        self.warnings = warnings

    @property
    def name(self) -> str:
        """The model's name as shown."""
        return self._engine.model.name

    @property
    def config(self) -> ResolvedConfig:
        """The engine's configuration, with the reason for each value."""
        return self._engine.config

    @property
    def remembers(self) -> bool:
        """Whether the model can be shown a conversation: it has a chat template."""
        return self._engine.tokenizer.chat_template is not None

    @property
    def generation_defaults(self) -> Mapping[str, Any]:
        """Sampling fields of the model's generation_config.json."""
        return self._engine.generation_defaults

    @property
    def max_model_len(self) -> int:
        """Tokens that prompt and answer may take together."""
        return self._engine.config.max_model_len

    def encode(self, chat: ChatPrompt) -> Sequence[int]:
        """Token ids of the prompt; without a chat template, of the last message as it is.

        Raises:
            RequestError: the chat template refuses the messages.
        """
        tokenizer = self._engine.tokenizer
        if self.remembers:
            return tokenizer.encode_chat(
                chat.messages,
                continue_final_message=chat.continues,
                template_kwargs=chat.template_kwargs or None,
            )
        alone = chat.messages[-2:] if chat.continues else chat.messages[-1:]
        return tokenizer.encode("".join(message["content"] for message in alone))

    def params(self, overrides: Mapping[str, Any]) -> SamplingParams:
        """The model's defaults with `overrides` on top."""
        return self._engine.default_params(**overrides)

    def splitter(self, prompt: FittedPrompt) -> ReasoningSplitter:
        """Tells reasoning from answer in what the model says to a prompt, which may have opened the reasoning."""
        return ReasoningSplitter(self._engine.tokenizer.reasoning, inside=self._opens_reasoning(prompt))

    def _opens_reasoning(self, prompt: FittedPrompt) -> bool:
        tokenizer, ids = self._engine.tokenizer, list(prompt.token_ids or ())
        end = tokenizer.decode(ids[-MARK_TOKENS:], skip_special_tokens=False)
        return tokenizer.reasoning.open_at_end(end)

    def submit(
        self, prompt: FittedPrompt, overrides: Mapping[str, Any], thinking: ThinkingBudget | None = None
    ) -> AnswerStream:
        """Start an answer.

        Raises:
            RequestError: the request can not be served.
        """
        assert prompt.token_ids is not None
        params = self.params(overrides)
        if params.structured is not None:
            params = params.replace(structured=self._placed(params.structured, prompt))
        if thinking is None:
            return self._thread.submit(prompt.token_ids, params)
        tokenizer = self._engine.tokenizer
        text = f"\n{tokenizer.reasoning.closing.strip()}\n\n"  # as models write it
        closing = Closing(text, tuple(tokenizer.encode(text, add_special_tokens=False)))
        splitter = self.splitter(prompt)
        return BudgetedStream(self._thread.submit, prompt.token_ids, params, thinking, splitter, closing)

    def with_engine(self, job: Callable[["Engine"], T]) -> T:
        """Do something with the engine, on its thread."""
        return self._thread.run(job)

    def _placed(self, form: StructuredOutput, prompt: FittedPrompt) -> StructuredOutput:
        """The form with what stands in its answer already, and behind the reasoning that comes first."""
        if prompt.chat.continues:
            return replace(form, begun=prompt.chat.messages[-1]["content"])
        marks = self._engine.tokenizer.reasoning
        if self._opens_reasoning(prompt):
            return form.behind(marks.closing)
        return form.behind_any(marks.opening, marks.closing)

    def describe(self) -> list[tuple[str, str]]:
        """Rows of label and value: the model, how it runs, and the prefix cache."""
        model, config, stats = self._engine.model, self._engine.config, self._engine.stats()
        quantization = self._engine.spec.quantization
        revision = f"@{model.revision[:12]}" if model.revision else ""
        return [
            ("model", f"{model.name}{revision} ({model.source})"),
            ("quantization", "none" if quantization is None else _awq(quantization)),
            ("dtype", _with_reason(config, "dtype", config.dtype)),
            ("device", _device(config)),
            ("memory", config.memory_sum()),
            ("context", _with_reason(config, "max_model_len", f"{config.max_model_len:,} tokens")),
            ("prefix cache", _prefix_hits(config, stats.prefix_hits, stats.prefix_queries)),
        ]

    def pieces(self, text: str) -> list[tuple[int, str]]:
        """Token ids and texts of a text."""
        tokenizer = self._engine.tokenizer
        ids = tokenizer.encode(text, add_special_tokens=False)
        return [(i, tokenizer.decode([i], skip_special_tokens=False)) for i in ids]

    def show_prompt(self, token_ids: Sequence[int] | None) -> str:
        """The text of a prompt as the model sees it, with control tokens in ⟦ ⟧."""
        tokenizer, ids = self._engine.tokenizer, list(token_ids or ())
        starts = [place for place, token_id in enumerate(ids) if token_id in tokenizer.control_ids]
        shown = [tokenizer.decode(ids[: starts[0]] if starts else ids)]
        for start, end in pairwise([*starts, len(ids)]):
            # Decoded along with its control token: a tokenizer may take away a space at the very beginning.
            control = tokenizer.decode(ids[start : start + 1], skip_special_tokens=False)
            text = tokenizer.decode(ids[start:end], skip_special_tokens=False)
            shown.append(f"⟦{control}⟧{text.removeprefix(control)}")
        return "".join(shown)

    def template(self) -> str | None:
        """The source of the chat template."""
        if self._chat_template is not None:
            return self._chat_template
        from llmcli.text.tokenizer_files import read_config, read_template_source

        folder = self._engine.model.path
        source = read_template_source(folder, read_config(folder))
        return source if source is None or isinstance(source, str) else json.dumps(source, indent=2)

    def license(self) -> str | None:
        """The text of the model's licence file, else what the head of its README names."""
        return licence_text(self._engine.model.path)

    @property
    def can_think(self) -> bool:
        """Whether the chat template asks for `enable_thinking`."""
        return THINK_SWITCH in (self.template() or "")

    @property
    def can_limit_thinking(self) -> bool:
        """Always: the marks around reasoning are known."""
        return True

    def close(self) -> None:
        """Stop the worker thread and free the engine."""
        self._thread.close()
        self._engine.close()


def load_backend(
    model: LocalModel, config: EngineConfig, substitutes: Substitutes, on_phase: Callable[[str], None]
) -> LocalBackend:
    """Build the engine and start its thread.

    Raises:
        LLMCliError: the model can not be read, is not supported, or does not fit.
    """
    from llmcli.engine.build import build_engine
    from llmcli.engine.stream import EngineThread

    warnings: list[str] = []
    engine = build_engine(
        model, config, substitutes=substitutes, on_phase=on_phase, on_warning=warnings.append
    )
    return LocalBackend(engine, EngineThread(engine), warnings, substitutes.chat_template)


def _awq(spec: AwqSpec) -> str:
    return f"AWQ 4-bit, {'whole rows' if spec.group_size == -1 else f'groups of {spec.group_size}'}"


def _device(config: ResolvedConfig) -> str:
    count = config.num_threads
    threads = f", {count} thread{'s' * (count != 1)}" if config.device == "cpu" else ""
    return _with_reason(config, "device", f"{config.device}, {config.kernels} kernels{threads}")


def _with_reason(config: ResolvedConfig, name: str, value: str) -> str:
    reason = config.reasons.get(name)
    return f"{value} ({reason})" if reason else value


def _prefix_hits(config: ResolvedConfig, hits: int, queries: int) -> str:
    if not config.enable_prefix_caching:
        return "off"
    return f"{hits:,} of {queries:,} prompt tokens" + (f" ({hits / queries:.0%})" if queries else "")
