"""An engine without a model, for the batch job: it answers with the prompt in capitals, one byte each step.

Keeps the promises of the real one: a bounded number of requests runs, every choice ends in exactly one event
with a finish reason, a dead engine raises.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmcli.errors import EngineError, RequestError
from llmcli.outputs import Logprob, RequestStats, TokenEvent, TokenLogprobs
from llmcli.sampling import SamplingParams
from llmcli.text.reasoning import THINK, ReasoningMarks


@dataclass
class ByteTokenizer:
    """One token per byte; the chat form is `<role>content` and so on, with the assistant's turn opened."""

    chat_template: str | None = "<role>content"
    reasoning: ReasoningMarks = THINK

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return bytes(ids).decode(errors="replace")

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], *, template_kwargs: Mapping[str, Any] | None = None
    ) -> list[int]:
        if any(message["content"] == "refuse me" for message in messages):
            raise RequestError("the template refuses these messages", param="messages")
        text = "".join(f"<{message['role']}>{message['content']}" for message in messages)
        return self.encode(text + "".join(template_kwargs or ()) + "<assistant>")


@dataclass(frozen=True)
class FakeStats:
    num_running: int = 0
    num_waiting: int = 0
    kv_usage: float = 0.0
    prefix_queries: int = 0
    prefix_hits: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0


@dataclass
class Running:
    request_id: str
    choice: int
    prompt: list[int]
    reply: bytes
    params: SamplingParams
    num_done: int = 0


@dataclass
class FakeEngine:
    """See the module.

    Attributes:
        before_step: called with the number of each step.
        failing: request id -> error that ends it with its first token.
        dies_at: number of the step that raises.
        reply: what is answered to a prompt, capitals by default.
    """

    tokenizer: ByteTokenizer = field(default_factory=ByteTokenizer)
    max_num_seqs: int = 4
    max_model_len: int = 1000
    before_step: Callable[[int], None] = lambda number: None
    failing: Mapping[str, str] = field(default_factory=dict)
    dies_at: int | None = None
    reply: Callable[[str], str] = str.upper
    added: list[tuple[str, list[int], SamplingParams]] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    most_open: int = 0
    num_steps: int = 0
    _queue: list[Running] = field(default_factory=list)
    _pending: list[TokenEvent] = field(default_factory=list)

    def default_params(self, **overrides: Any) -> SamplingParams:
        return SamplingParams(**{"temperature": 0.5, **overrides})

    def add(self, prompt: Sequence[int], params: SamplingParams, *, request_id: str | None = None) -> str:
        assert request_id is not None
        if len(prompt) >= self.max_model_len:
            raise RequestError(f"the prompt has {len(prompt)} tokens, the context {self.max_model_len}")
        if max(prompt) > 255:
            raise RequestError(f"token id {max(prompt)} is not in 0..255", param="prompt_token_ids")
        self.added.append((request_id, list(prompt), params))
        reply = self.reply(self.tokenizer.decode(prompt)).encode()[: params.max_tokens]
        for choice in range(params.n):
            self._queue.append(Running(request_id, choice, list(prompt), reply, params))
        self.most_open = max(self.most_open, len({entry.request_id for entry in self._queue}))
        return request_id

    def abort(self, request_id: str) -> None:
        self.aborted.append(request_id)
        for entry in [entry for entry in self._queue if entry.request_id == request_id]:
            self._queue.remove(entry)
            self._pending.append(TokenEvent(request_id, entry.choice, "", (), finish_reason="abort"))

    def step(self) -> list[TokenEvent]:
        self.num_steps += 1
        self.before_step(self.num_steps)
        if self.num_steps == self.dies_at:
            raise EngineError("the engine stopped")
        events, self._pending = self._pending, []
        return events + [self._advance(entry) for entry in self._queue[: self.max_num_seqs]]

    def stats(self) -> FakeStats:
        running = min(len(self._queue), self.max_num_seqs)
        return FakeStats(num_running=running, num_waiting=len(self._queue) - running)

    def _advance(self, entry: Running) -> TokenEvent:
        token_id = entry.reply[entry.num_done]
        entry.num_done += 1
        last = entry.num_done == len(entry.reply)
        error = self.failing.get(entry.request_id)
        reason = "error" if error else ("length" if entry.num_done == entry.params.max_tokens else "stop")
        if last or error:
            self._queue.remove(entry)
        drawn = Logprob(token_id, -0.5, 1, chr(token_id))
        done = last or error is not None
        return TokenEvent(
            entry.request_id,
            entry.choice,
            chr(token_id),
            (token_id,),
            logprobs=None if entry.params.logprobs is None else (TokenLogprobs(drawn, (drawn,)),),
            finish_reason=reason if done else None,
            error=error,
            stats=RequestStats(len(entry.prompt), 2, entry.num_done, 0.001, 0.002, 0.004) if done else None,
        )
