"""The two values that cross between the scheduler and torch: `Step` goes down, `StepResult` comes up.

Both are frozen and plain, so that the same step can drive one process, every tensor-parallel rank, a scripted fake in
tests and a debug dump. There are no prefill and decode phases: a slice is the next run of known, uncomputed tokens.
What is made anew for every sequence in every step is a named tuple: it takes a quarter of the time of a frozen
dataclass, and that is a good part of what a step costs.
"""

from dataclasses import dataclass
from typing import NamedTuple

from llmcli.outputs import TokenLogprobs
from llmcli.sampling import SamplingParams

UNKNOWN = 0  # stands for a token id that is not known yet, see `SequenceSlice.late`


class SampleSpec(NamedTuple):
    """How to draw the token that follows a slice.

    Attributes:
        params: the request's parameters.
        seed: the seed in force (params.seed, or the one drawn at admission).
        choice: the index of the choice, part of the random key.
        position: number of output tokens before this one, part of the random key.
        banned_ids: ids that may not be drawn now (stop and end ids before min_tokens).
        prompt_ids, output_ids: the tokens so far, filled only when params.uses_history; without the one that is being
            drawn, if the slice is late.
        allowed: one bit for each id that may be drawn, bit i % 8 of byte i // 8 for id i; None allows all. The engine
            sets it.
    """

    params: SamplingParams
    seed: int
    choice: int
    position: int
    banned_ids: tuple[int, ...] = ()
    prompt_ids: tuple[int, ...] = ()
    output_ids: tuple[int, ...] = ()
    allowed: bytes | None = None


class SequenceSlice(NamedTuple):
    """The run of one sequence's tokens that a step computes.

    Attributes:
        seq_id: the sequence; unique for the life of the engine.
        start: position of token_ids[0]; all positions before it have their keys and values in the blocks.
        token_ids: the tokens to compute, at least one.
        block_ids: the blocks that hold positions 0 .. start + len(token_ids) - 1, in order.
        sample: set when the slice ends at the last token that is known or being drawn, so that a new one is drawn.
        late: the slice is the one token that the step before this one draws for the sequence. It is not known when
            the slice is made, and token_ids holds UNKNOWN; the runner has it on the device when it is needed.
    """

    seq_id: int
    start: int
    token_ids: tuple[int, ...]
    block_ids: tuple[int, ...]
    sample: SampleSpec | None = None
    late: bool = False

    @property
    def end(self) -> int:
        """Number of positions computed once the step is done."""
        return self.start + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass: slices of different sequences, computed together."""

    slices: tuple[SequenceSlice, ...]

    @property
    def num_tokens(self) -> int:
        return sum(len(s.token_ids) for s in self.slices)


class SampledToken(NamedTuple):
    """The token drawn for one slice; `finite` is False when its row of logits held NaN or infinity."""

    seq_id: int
    token_id: int
    logprobs: TokenLogprobs | None = None
    finite: bool = True


@dataclass(frozen=True, slots=True)
class StepResult:
    """One token for every slice with a SampleSpec, in the order of the slices."""

    tokens: tuple[SampledToken, ...]
