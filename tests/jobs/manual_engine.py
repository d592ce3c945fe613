"""An engine without a model on a clock that only its steps move: times come out by hand.

Each step takes a second and computes at most `budget` tokens: one for each sequence that generates, then prompts in
order. A prompt whose beginning was computed before finds it in blocks of `block_size` tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from llmcli.config import ResolvedConfig
from llmcli.outputs import RequestStats, TokenEvent
from llmcli.sampling import SamplingParams


def resolved(**changes: Any) -> ResolvedConfig:
    """A configuration with room for whatever a test asks."""
    values = {
        "dtype": "float32",
        "device": "cpu",
        "kernels": "cpu",
        "kv_cache_dtype": "float32",
        "lm_head": "full",
        "max_model_len": 1000,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 16,
        "block_size": 16,
        "num_blocks": 1000,
        "enable_prefix_caching": True,
        "num_threads": 1,
        "seed": None,
        "weight_bytes": 10_000,
        "workspace_bytes": 0,
        "kv_bytes_per_token": 1,
        "reasons": {"max_model_len": "the model's"},
    }
    return ResolvedConfig(**(values | changes))


@dataclass
class Sequence_:
    request_id: str
    prompt: list[int]
    params: SamplingParams
    cached: int
    computed: int
    output: int = 0


@dataclass
class ManualEngine:
    """See the module.

    Attributes:
        now: the clock; `engine.clock` reads it.
        interrupt_at: number of the step in which Ctrl-C is pressed.
        fails_at: number of the step in which every request fails.
    """

    config: ResolvedConfig = field(default_factory=resolved)
    interrupt_at: int | None = None
    fails_at: int | None = None
    now: float = 0.0
    steps: int = 0
    added: list[list[int]] = field(default_factory=list)
    open: list[Sequence_] = field(default_factory=list)
    pending: list[TokenEvent] = field(default_factory=list)
    computed_prompts: list[list[int]] = field(default_factory=list)
    spec: Any = field(
        default_factory=lambda: SimpleNamespace(vocab_size=50, hidden_size=10, tie_word_embeddings=False)
    )

    def clock(self) -> float:
        return self.now

    @property
    def has_work(self) -> bool:
        return bool(self.open or self.pending)

    def reset_prefix_cache(self) -> bool:
        self.computed_prompts.clear()
        return True

    def add(self, prompt: Sequence[int], params: SamplingParams) -> str:
        self.added.append(list(prompt))
        cached = max((self._shared(prompt, old) for old in self.computed_prompts), default=0)
        request_id = f"request-{len(self.added)}"
        self.open.append(Sequence_(request_id, list(prompt), params, cached, cached))
        return request_id

    def abort(self, request_id: str) -> None:
        for sequence in [each for each in self.open if each.request_id == request_id]:
            self.open.remove(sequence)
            self.pending.append(TokenEvent(request_id, 0, "", (), finish_reason="abort"))

    def step(self) -> list[TokenEvent]:
        events, self.pending = self.pending, []
        if not self.open:
            return events
        self.steps += 1
        if self.steps == self.interrupt_at:
            raise KeyboardInterrupt
        self.now += 1.0
        if self.steps == self.fails_at:
            failed, self.open = self.open, []
            return [
                TokenEvent(each.request_id, 0, "", (), finish_reason="error", error="gone") for each in failed
            ]
        budget = self.config.max_num_batched_tokens
        for sequence in list(self.open):
            wanted = len(sequence.prompt) - sequence.computed if sequence.output == 0 else 1
            share = min(wanted, budget)
            budget -= share
            sequence.computed += share
            if share and sequence.computed >= len(sequence.prompt):
                events.append(self._token(sequence))
        return events

    def _token(self, sequence: Sequence_) -> TokenEvent:
        sequence.output += 1
        if sequence.output == 1:
            self.computed_prompts.append(sequence.prompt)
        if sequence.output < (sequence.params.max_tokens or 0):
            return TokenEvent(sequence.request_id, 0, "x", (1,))
        self.open.remove(sequence)
        stats = RequestStats(len(sequence.prompt), sequence.cached, sequence.output, 0.0, 0.0, 0.0)
        return TokenEvent(sequence.request_id, 0, "x", (1,), finish_reason="length", stats=stats)

    def _shared(self, prompt: Sequence[int], old: Sequence[int]) -> int:
        """Tokens of whole blocks that both begin with; the last token of a prompt is always computed."""
        size = self.config.block_size
        same = next((i for i, (a, b) in enumerate(zip(prompt, old, strict=False)) if a != b), len(old))
        return min(same, len(prompt) - 1) // size * size
