"""A scripted engine with the interface of `Engine` and `EngineThread`: no weights, no threads, no torch."""

import io
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from llmcli.config import ResolvedConfig
from llmcli.errors import DoesNotFitError, ModelNotFoundError, RequestError
from llmcli.hub.models import LocalModel
from llmcli.outputs import Logprob, RequestStats, TokenEvent, TokenLogprobs
from llmcli.sampling import SamplingParams
from llmcli.structured import StructuredOutput
from llmcli.text.grammar import check_form
from llmcli.text.reasoning import THINK
from llmcli.ui.backend import LocalBackend
from llmcli.ui.conversation import Conversation
from llmcli.ui.loading import Loader
from llmcli.ui.notes import Notes
from llmcli.ui.parameters import Parameters
from llmcli.ui.sessions.log import SessionLog
from llmcli.ui.sessions.store import SessionStore
from llmcli.ui.state import ChatState, Terminal
from llmcli.ui.waiting import Waiting

GIVE_UP_S = 10.0


@dataclass(frozen=True)
class Script:
    """One answer: its pieces, how it ends, and whether Ctrl-C is pressed after the last piece."""

    pieces: Sequence[str] = ("Hello", " there", ".")
    finish_reason: str = "stop"
    error: str | None = None
    interrupted: bool = False


class WordTokenizer:
    """One token per word, plus one per message of a chat."""

    control_ids = frozenset({0})
    reasoning = THINK

    def __init__(self, chat_template: str | None = "words", prompt_end: str = "") -> None:
        self.chat_template = chat_template
        self._prompt_end = prompt_end

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [len(word) for word in text.split()]

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[int]:
        self.template_kwargs = template_kwargs
        return [token for message in messages for token in (0, *self.encode(message["content"]))]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        words = " ".join("x" * i or "<0>" for i in ids if i or not skip_special_tokens)
        return words + self._prompt_end


class FakeStream:
    """Plays a script; an interrupted one waits to be aborted."""

    request_id = "request-0"

    def __init__(self, script: Script, num_prompt_tokens: int, num_cached_tokens: int = 0) -> None:
        self._script = script
        self._num_prompt_tokens = num_prompt_tokens
        self._num_cached_tokens = num_cached_tokens
        self.aborted = threading.Event()

    def __iter__(self) -> Iterator[TokenEvent]:
        for piece in self._script.pieces:
            best, other = Logprob(1, math.log(0.75), 1, piece), Logprob(2, math.log(0.125), 2, "else")
            yield TokenEvent(self.request_id, 0, piece, (1,), (TokenLogprobs(best, (best, other)),))
        reason: Any = self._script.finish_reason
        if self._script.interrupted:
            signal.raise_signal(signal.SIGINT)
            assert self.aborted.wait(GIVE_UP_S), "nobody aborted the stream"
            reason = "abort"
        num_output = len(self._script.pieces)
        stats = RequestStats(self._num_prompt_tokens, self._num_cached_tokens, num_output, 0.0, 0.25, 1.25)
        yield TokenEvent(self.request_id, 0, "", (), None, reason, None, self._script.error, stats)

    def abort(self) -> None:
        self.aborted.set()


@dataclass
class FakeEngine:
    """Answers one script after the other and remembers what it was asked."""

    scripts: list[Script] = field(default_factory=list)
    max_model_len: int = 100
    generation_defaults: Mapping[str, Any] = field(default_factory=dict)
    chat_template: str | None = "words"
    prompt_end: str = ""
    prompts: list[list[int]] = field(default_factory=list)
    params: list[SamplingParams] = field(default_factory=list)
    streams: list[FakeStream] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        self.model = LocalModel("fake", Path("fake"), None, "folder")
        self.spec = SimpleNamespace(quantization=None)
        self.tokenizer = WordTokenizer(self.chat_template, self.prompt_end)
        self.config = resolved_config(self.max_model_len)

    def default_params(self, **overrides: Any) -> SamplingParams:
        given = {name: value for name, value in overrides.items() if value is not None}
        return SamplingParams(**{**self.generation_defaults, **given})

    def stats(self) -> Any:
        return SimpleNamespace(prefix_hits=30, prefix_queries=40)

    def submit(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> FakeStream:
        if len(prompt_token_ids) >= self.max_model_len:
            raise RequestError(f"prompt of {len(prompt_token_ids)} tokens, room for {self.max_model_len}")
        ids = list(prompt_token_ids)
        num_cached = max((common_prefix(ids, before) for before in self.prompts), default=0)
        self.prompts.append(ids)
        self.params.append(params)
        script = self.scripts.pop(0) if self.scripts else Script()
        self.streams.append(FakeStream(script, len(ids), num_cached))
        return self.streams[-1]

    def run(self, job: Callable[["FakeEngine"], Any]) -> Any:
        return job(self)

    def close(self) -> None:
        self.closed = True


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    size = 0
    while size < min(len(first), len(second)) and first[size] == second[size]:
        size += 1
    return size


def resolved_config(max_model_len: int) -> ResolvedConfig:
    return ResolvedConfig(
        dtype="float32",
        device="cpu",
        kernels="cpu",
        kv_cache_dtype="float32",
        lm_head="full",
        max_model_len=max_model_len,
        max_num_seqs=4,
        max_num_batched_tokens=64,
        block_size=16,
        num_blocks=8,
        enable_prefix_caching=True,
        num_threads=2,
        seed=None,
        weight_bytes=1 << 20,
        workspace_bytes=1 << 20,
        kv_bytes_per_token=1 << 10,
        reasons={"dtype": "option"},
    )


class FakeModels:
    """Engines by name; one that is None can not be loaded."""

    url = None
    aliases: Mapping[str, str] = {}

    def __init__(self, chat: "Chat", engines: Mapping[str, FakeEngine | None]) -> None:
        self._chat = chat
        self._engines = engines

    def names(self) -> list[str]:
        return list(self._engines)

    def prepare(self, name: str | None, revision: str | None = None) -> Waiting:
        if name not in self._engines:
            raise ModelNotFoundError(f"no model {name}")
        return self._chat.waiting(str(name), self._engines[name])

    def check_form(self, form: StructuredOutput) -> None:
        check_form(form)


class Chat:
    """A chat state over a fake engine, with what it printed."""

    def __init__(
        self,
        engine: FakeEngine,
        flags: Mapping[str, Any] | None = None,
        *,
        verbose: bool = False,
        folder: Path | None = None,
        others: Mapping[str, FakeEngine | None] | None = None,
    ) -> None:
        self.engine = engine
        self.printed = io.StringIO()
        self.clipboard: list[str] = []
        self._verbose = verbose
        self._notes = Notes(Console(file=self.printed, markup=False, width=200))
        self._parameters = Parameters(flags)
        log = SessionLog(None if folder is None else SessionStore(folder), self._notes)
        log.begin()
        self.state = ChatState(
            conversation=Conversation(),
            parameters=self._parameters,
            notes=self._notes,
            backend=self.waiting("fake", engine),
            models=FakeModels(self, {"fake": engine, **(others or {})}),
            log=log,
            terminal=Terminal(editor=None, put_clipboard=self.clipboard.append),
        )
        self.state.backend.start()

    def waiting(self, name: str, engine: FakeEngine | None) -> Waiting:
        def build(on_phase: object) -> LocalBackend:
            if engine is None:
                raise DoesNotFitError(f"{name} is too big")
            return LocalBackend(engine, engine)  # type: ignore[arg-type]

        return Waiting(Loader(build), name, self._notes, self._parameters, verbose=self._verbose)

    @property
    def notes(self) -> str:
        return self.printed.getvalue()


class Lines:
    """A reader that gives lines from a list."""

    def __init__(self, *lines: str) -> None:
        self._lines = list(lines)
        self.drafts: list[str] = []

    def read(self, text: str = "") -> str:
        self.drafts.append(text)
        if not self._lines:
            raise EOFError
        return self._lines.pop(0)
