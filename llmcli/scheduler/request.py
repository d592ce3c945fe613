"""`Request`: one sequence, that is one choice of one user request, and how far it has come.

Mutable, and changed by the scheduler only; the engine makes it and may read it. Knows no text and no tensor.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from llmcli.outputs import FinishReason
from llmcli.sampling import SamplingParams
from llmcli.scheduler.prefix import Chain
from llmcli.scheduler.step import UNKNOWN, SampleSpec, SequenceSlice


class State(Enum):
    """WAITING -> RUNNING -> FINISHED; preempted: back to WAITING; aborted: FINISHED from anywhere."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


def stop_ids(params: SamplingParams, eos_ids: Iterable[int]) -> frozenset[int]:
    """The ids that end the output: end-of-sequence ids unless ignored, and the request's own."""
    return frozenset(params.stop_token_ids).union(() if params.ignore_eos else eos_ids)


def output_room(params: SamplingParams, num_prompt_tokens: int, max_model_len: int) -> int:
    """The number of output tokens in force: what is asked for, or what the context leaves, whichever is less.

    Not positive when the prompt fills the context; `Scheduler.add` refuses that.
    """
    room = max_model_len - num_prompt_tokens
    return room if params.max_tokens is None else min(params.max_tokens, room)


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    """One sequence.

    Attributes:
        seq_id: unique for the life of the engine.
        seed: the seed in force.
        choice: index of the choice in the user's request.
        stop_ids: ids that end the output.
        max_output_tokens: see `output_room`.
        cache_salt: what the keys and values depend on besides the tokens (adapter, tenant).
        order: place in the queue, given by the scheduler; less is served first, for life.
        num_computed: positions whose keys and values are in the blocks.
        num_planned: the same once all steps in flight are done.
        num_pending: tokens that the steps in flight draw, known when these land.
        num_cached_tokens: prompt tokens that the prefix cache served when it was first admitted.
        chain: its way through the prefix cache; None without one.
    """

    seq_id: int
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    seed: int
    max_output_tokens: int
    choice: int = 0
    stop_ids: frozenset[int] = frozenset()
    cache_salt: bytes = b""

    order: int = field(default=0, init=False)
    state: State = field(default=State.WAITING, init=False)
    output_ids: list[int] = field(default_factory=list, init=False)
    num_computed: int = field(default=0, init=False)
    num_planned: int = field(default=0, init=False)
    num_pending: int = field(default=0, init=False)
    block_ids: list[int] = field(default_factory=list, init=False)
    chain: Chain | None = field(default=None, init=False)
    num_cached_tokens: int = field(default=0, init=False)
    num_preemptions: int = field(default=0, init=False)
    finish_reason: FinishReason | None = field(default=None, init=False)
    _block_table: tuple[int, ...] = field(default=(), init=False)
    _banned_ids: tuple[int, ...] = field(init=False)
    _uses_history: bool = field(init=False)

    def __post_init__(self) -> None:
        self._banned_ids = tuple(sorted(self.stop_ids))
        self._uses_history = self.params.uses_history

    @property
    def num_tokens(self) -> int:
        """Tokens known: prompt and output."""
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def num_unplanned(self) -> int:
        """Tokens that no step computes yet; one that is being drawn counts, unless it is the last of the output."""
        num_output = len(self.output_ids) + self.num_pending
        return (
            0
            if num_output >= self.max_output_tokens
            else len(self.prompt_ids) + num_output - self.num_planned
        )

    def tokens(self, start: int, end: int) -> tuple[int, ...]:
        """The known tokens at positions start .. end - 1."""
        num_prompt = len(self.prompt_ids)
        if start >= num_prompt:
            return tuple(self.output_ids[start - num_prompt : end - num_prompt])
        head = self.prompt_ids[start:end]
        return head if end <= num_prompt else head + tuple(self.output_ids[: end - num_prompt])

    def next_slice(self, num_tokens: int) -> SequenceSlice:
        """The next `num_tokens` unplanned tokens; sampled after when they reach the last one."""
        start, end = self.num_planned, self.num_planned + num_tokens
        sample = self._sample_spec() if end == self.num_tokens + self.num_pending else None
        late = end > self.num_tokens  # a token that is being drawn: all before it are planned already
        tokens = (UNKNOWN,) if late else self.tokens(start, end)
        if len(self._block_table) != len(self.block_ids):  # it grows here, and every cut empties the copy
            self._block_table = tuple(self.block_ids)
        return SequenceSlice(self.seq_id, start, tokens, self._block_table, sample, late)

    def plan(self, part: SequenceSlice) -> None:
        """Its next slice is in flight."""
        self.num_planned = part.end
        self.num_pending += part.sample is not None

    def rewind(self, num_computed: int) -> None:
        """So many positions are computed, and none is in flight."""
        self.num_computed = self.num_planned = num_computed
        self.num_pending = 0

    def _sample_spec(self) -> SampleSpec:
        position = len(self.output_ids) + self.num_pending
        return SampleSpec(
            self.params,
            self.seed,
            self.choice,
            position,
            self._banned_ids if position < self.params.min_tokens else (),
            self.prompt_ids if self._uses_history else (),
            tuple(self.output_ids) if self._uses_history else (),
        )

    def reason_to_stop(self) -> tuple[FinishReason | None, int | None]:
        """Finish reason and stop reason after the last output token; the latter names a requested stop id."""
        token_id = self.output_ids[-1]
        if token_id in self.stop_ids:
            return "stop", token_id if token_id in self.params.stop_token_ids else None
        return ("length" if len(self.output_ids) >= self.max_output_tokens else None), None

    def clear_blocks(self) -> list[int]:
        """Give up the block table, and with it everything computed; returns the blocks it named."""
        self.rewind(0)
        return self.cut_blocks(0)

    def cut_blocks(self, num_blocks: int) -> list[int]:
        """Keep the first `num_blocks` blocks of the table; returns the others."""
        cut = self.block_ids[num_blocks:]
        del self.block_ids[num_blocks:]
        if cut:
            self._block_table = ()
        return cut
