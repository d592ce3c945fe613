"""Stand-ins for the parts of the engine that need a model: the oracle runner and the output it must lead to.

The oracle runs a `Step` on KV slots that remember what was written into them. It reads every sequence back
through its block table and asserts that the slots spell it; the next token is a hash of what was read. A
wrong, stale or shared block therefore fails the step, or else changes the output. Knows nothing of the
scheduler.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from llmcli.sampling import SamplingParams
from llmcli.scheduler.step import UNKNOWN, SampledToken, SampleSpec, SequenceSlice, Step, StepResult

VOCAB_SIZE = 32


@dataclass(frozen=True, slots=True)
class Slot:
    """One position's keys and values: what they depend on, and who wrote them in which step."""

    token_id: int
    position: int
    salt: bytes
    finite: bool
    writer: int
    step: int


def next_token(tokens: Sequence[int], salt: bytes, seed: int, choice: int, banned_ids: Sequence[int]) -> int:
    """The token that the oracle draws after `tokens`, in 0 .. VOCAB_SIZE - 1."""
    data = array("q", (seed, choice, *tokens)).tobytes() + salt
    token_id = int.from_bytes(blake2b(data, digest_size=8).digest(), "little") % VOCAB_SIZE
    while token_id in banned_ids:
        token_id = (token_id + 1) % VOCAB_SIZE
    return token_id


def solo_output(
    prompt_ids: Sequence[int],
    params: SamplingParams,
    *,
    seed: int,
    max_output_tokens: int,
    choice: int = 0,
    stop_ids: frozenset[int] = frozenset(),
    salt: bytes = b"",
) -> list[int]:
    """What a request must put out, whatever else runs: the oracle's hash with no scheduler and no cache."""
    output: list[int] = []
    while len(output) < max_output_tokens:
        banned = sorted(stop_ids) if len(output) < params.min_tokens else ()
        output.append(next_token((*prompt_ids, *output), salt, seed, choice, banned))
        if output[-1] in stop_ids:
            break
    return output


@dataclass(slots=True)
class _Sequence:
    """What the oracle knows of one sequence, from its announcement and from what it drew itself."""

    tokens: list[int]
    num_prompt: int
    salt: bytes
    bad_position: int | None


@dataclass(slots=True)
class OracleRunner:
    """A runner without a model. Steps run one after the other; a late slice gets the token that the step before drew,
    whether or not the scheduler has been told.

    Args:
        num_blocks, block_size: of its KV cache.
    """

    num_blocks: int
    block_size: int
    num_steps: int = field(default=0, init=False)
    slots: list[list[Slot | None]] = field(init=False)
    _sequences: dict[int, _Sequence] = field(default_factory=dict, init=False)
    _drawn: dict[int, int] = field(default_factory=dict, init=False)  # by the last step

    def __post_init__(self) -> None:
        self.slots = [[None] * self.block_size for _ in range(self.num_blocks)]

    def expect(
        self, seq_id: int, prompt_ids: Sequence[int], *, salt: bytes = b"", bad_position: int | None = None
    ) -> None:
        """Announce a sequence before its first slice.

        Computing its `bad_position` gives keys and values that are not finite, and with them every later row.
        """
        self._sequences[seq_id] = _Sequence(list(prompt_ids), len(prompt_ids), salt, bad_position)

    def forget(self, seq_id: int) -> None:
        self._sequences.pop(seq_id, None)

    def rewind(self, seq_id: int, num_outputs: int) -> None:
        """Steps were lost: of the tokens drawn for a sequence so many are known, and the others are drawn again."""
        sequence = self._sequences[seq_id]
        del sequence.tokens[sequence.num_prompt + num_outputs :]
        self._drawn.pop(seq_id, None)

    def run(self, step: Step) -> StepResult:
        """Write all slices, then read each back and draw its token.

        Raises:
            AssertionError: the step would corrupt or misread the KV cache.
        """
        self.num_steps += 1
        ids = [s.seq_id for s in step.slices]
        assert len(set(ids)) == len(ids), f"a sequence has two slices: {ids}"
        holders = Counter(block_id for s in step.slices for block_id in s.block_ids)
        for s in step.slices:
            self._write(s, holders)
        read = [self._read(s) for s in step.slices]
        pairs = zip(step.slices, read, strict=True)
        drawn = tuple(self._draw(s, s.sample, slots) for s, slots in pairs if s.sample is not None)
        self._drawn = {token.seq_id: token.token_id for token in drawn}
        return StepResult(drawn)

    def _write(self, s: SequenceSlice, holders: Counter[int]) -> None:
        sequence = self._sequences[s.seq_id]
        assert s.token_ids, f"sequence {s.seq_id} has an empty slice"
        token_ids = self._token_ids(s)
        assert token_ids == sequence.tokens[s.start : s.end], f"sequence {s.seq_id} is given other tokens"
        assert (s.sample is not None) == (s.end == len(sequence.tokens)), (
            f"sequence {s.seq_id} draws at {s.end}"
        )
        num_blocks = -(-s.end // self.block_size)
        assert len(s.block_ids) == num_blocks, (
            f"sequence {s.seq_id} has {len(s.block_ids)} blocks, not {num_blocks}"
        )
        for block_id in s.block_ids[s.start // self.block_size :]:
            assert holders[block_id] == 1, (
                f"sequence {s.seq_id} writes block {block_id}, which another one has too"
            )
        bad = sequence.bad_position
        for position, token_id in enumerate(token_ids, s.start):
            finite = bad is None or position < bad
            slot = Slot(token_id, position, sequence.salt, finite, s.seq_id, self.num_steps)
            self.slots[s.block_ids[position // self.block_size]][position % self.block_size] = slot

    def _token_ids(self, s: SequenceSlice) -> list[int]:
        if not s.late:
            return list(s.token_ids)
        assert s.token_ids == (UNKNOWN,), f"sequence {s.seq_id} has a late slice of other tokens too"
        assert s.seq_id in self._drawn, (
            f"sequence {s.seq_id} is late, and the step before drew nothing for it"
        )
        return [self._drawn[s.seq_id]]

    def _read(self, s: SequenceSlice) -> list[Slot]:
        """The slots of positions 0 .. end - 1, or an AssertionError that names the first that is wrong."""
        sequence = self._sequences[s.seq_id]
        slots = [slot for block_id in s.block_ids for slot in self.slots[block_id]]
        read: list[Slot] = []
        for position, slot in zip(range(s.end), slots, strict=False):
            assert slot is not None, f"sequence {s.seq_id} reads position {position}, which nobody wrote"
            found = (slot.token_id, slot.position, slot.salt)
            wanted = (sequence.tokens[position], position, sequence.salt)
            assert found == wanted, f"sequence {s.seq_id} wants token, position, salt {wanted}, reads {slot}"
            assert slot.finite or slot.writer == s.seq_id, f"sequence {s.seq_id} reads bad values of {slot}"
            read.append(slot)
        return read

    def _draw(self, s: SequenceSlice, sample: SampleSpec, read: list[Slot]) -> SampledToken:
        sequence = self._sequences[s.seq_id]
        assert sample.position == s.end - sequence.num_prompt, (
            f"sequence {s.seq_id} draws for another position"
        )
        if sample.params.uses_history:
            history = [*sample.prompt_ids, *sample.output_ids]
            known = sequence.tokens[:-1] if s.late else sequence.tokens
            assert history == known, f"sequence {s.seq_id} is given another history"
        if not all(slot.finite for slot in read):
            sequence.tokens.append(0)
            return SampledToken(s.seq_id, 0, finite=False)
        tokens = [slot.token_id for slot in read]
        token_id = next_token(tokens, read[0].salt, sample.seed, sample.choice, sample.banned_ids)
        sequence.tokens.append(token_id)
        return SampledToken(s.seq_id, token_id)
