"""What a chat needs of a model: encode messages, start an answer, tell about itself.

The only place of the chat that touches an engine. A model behind another door (a running server, say) needs
the same methods. Made by `load_backend` in the loader's thread, used by the session and the single answer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmcli.config import EngineConfig, ResolvedConfig
from llmcli.hub.models import LocalModel
from llmcli.model.spec import AwqSpec
from llmcli.sampling import SamplingParams
from llmcli.text.reasoning import ReasoningSplitter
from llmcli.ui.conversation import Message

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine
    from llmcli.engine.stream import EngineThread, Stream

MARK_TOKENS = 32  # more than the opening of reasoning and the white space after it have


class LocalBackend:
    """The in-process engine, driven by its worker thread."""

    def __init__(self, engine: "Engine", thread: "EngineThread", warnings: Sequence[str] = ()) -> None:
        self._engine = engine
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

    def encode(self, messages: Sequence[Message]) -> Sequence[int]:
        """Token ids of the prompt; without a chat template, of the last message as it is.

        Raises:
            RequestError: the chat template refuses the messages.
        """
        tokenizer = self._engine.tokenizer
        return (
            tokenizer.encode_chat(messages) if self.remembers else tokenizer.encode(messages[-1]["content"])
        )

    def splitter(self, prompt_ids: Sequence[int]) -> ReasoningSplitter:
        """Tells reasoning from answer in what the model says to a prompt, which may have opened the reasoning."""
        tokenizer = self._engine.tokenizer
        end = tokenizer.decode(prompt_ids[-MARK_TOKENS:], skip_special_tokens=False)
        return ReasoningSplitter(tokenizer.reasoning, inside=tokenizer.reasoning.open_at_end(end))

    def params(self, overrides: Mapping[str, Any]) -> SamplingParams:
        """The model's defaults with `overrides` on top."""
        return self._engine.default_params(**overrides)

    def submit(self, token_ids: Sequence[int], params: SamplingParams) -> "Stream":
        """Start an answer.

        Raises:
            RequestError: the request can not be served.
        """
        return self._thread.submit(token_ids, params)

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

    def close(self) -> None:
        """Stop the worker thread and free the engine."""
        self._thread.close()
        self._engine.close()


def load_backend(model: LocalModel, config: EngineConfig, on_phase: Callable[[str], None]) -> LocalBackend:
    """Build the engine and start its thread.

    Raises:
        LLMCliError: the model can not be read, is not supported, or does not fit.
    """
    from llmcli.engine.build import build_engine
    from llmcli.engine.stream import EngineThread

    warnings: list[str] = []
    engine = build_engine(model, config, on_phase=on_phase, on_warning=warnings.append)
    return LocalBackend(engine, EngineThread(engine), warnings)


def _awq(spec: AwqSpec) -> str:
    return f"AWQ 4-bit, {'whole rows' if spec.group_size == -1 else f'groups of {spec.group_size}'}"


def _device(config: ResolvedConfig) -> str:
    threads = f", {config.num_threads} threads" if config.device == "cpu" else ""
    return _with_reason(config, "device", f"{config.device}, {config.kernels} kernels{threads}")


def _with_reason(config: ResolvedConfig, name: str, value: str) -> str:
    reason = config.reasons.get(name)
    return f"{value} ({reason})" if reason else value


def _prefix_hits(config: ResolvedConfig, hits: int, queries: int) -> str:
    if not config.enable_prefix_caching:
        return "off"
    return f"{hits:,} of {queries:,} prompt tokens" + (f" ({hits / queries:.0%})" if queries else "")
