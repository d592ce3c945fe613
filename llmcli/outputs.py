"""What comes out of the engine: events while a request runs, and the whole of it at the end.

`TokenEvent` is a difference, for streaming; `RequestOutput` is a sum, for callers that wait. Both are plain data.
"""

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True, slots=True)
class Logprob:
    """The log-probability of one token: natural logarithm, of the model's raw distribution."""

    token_id: int
    logprob: float
    rank: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The sampled token of one position and the most likely ones, best first."""

    sampled: Logprob
    top: tuple[Logprob, ...]


@dataclass(frozen=True, slots=True)
class RequestStats:
    """Counts and times of one choice of a request; seconds on a monotonic clock from its admission."""

    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    queue_s: float
    ttft_s: float
    total_s: float

    @property
    def tokens_per_s(self) -> float:
        """Decode rate: output tokens after the first, over the time since the first."""
        decode_s = self.total_s - self.ttft_s
        return (self.num_output_tokens - 1) / decode_s if self.num_output_tokens > 1 and decode_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """What one step added to one choice of one request.

    A choice gets any number of events without a finish reason and then exactly one with it; `stats` is set on that
    last one. `text` may be empty while a character or a possible stop string is still incomplete.
    """

    request_id: str
    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    error: str | None = None
    stats: RequestStats | None = None


@dataclass(slots=True)
class CompletionOutput:
    """One choice: the text and ids so far, and why it ended (None while it runs)."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None
    cumulative_logprob: float | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    error: str | None = None
    stats: RequestStats | None = None


@dataclass(slots=True)
class RequestOutput:
    """A request with all its choices."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    num_cached_tokens: int = 0

    @property
    def finished(self) -> bool:
        return all(choice.finish_reason is not None for choice in self.outputs)

    def apply(self, event: TokenEvent) -> None:
        """Add one event of this request to its sum."""
        choice = self.outputs[event.index]
        choice.text += event.text
        choice.token_ids.extend(event.token_ids)
        if event.logprobs is not None:
            choice.logprobs = (choice.logprobs or []) + list(event.logprobs)
            added = sum(entry.sampled.logprob for entry in event.logprobs)
            choice.cumulative_logprob = (choice.cumulative_logprob or 0.0) + added
        if event.finish_reason is not None:
            choice.finish_reason = event.finish_reason
            choice.stop_reason = event.stop_reason
            choice.error = event.error
            choice.stats = event.stats
            if event.stats is not None:
                self.num_cached_tokens = max(self.num_cached_tokens, event.stats.num_cached_tokens)
