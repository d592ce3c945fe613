"""Keeps every constrained sequence to the form of its answer: a matcher for each, and the masks of a step.

Knows neither the queue nor the model. A matcher lives as long as its sequence and is advanced by the tokens of its
answer alone: one that gives up its blocks and is computed again, or a step that is repeated, changes nothing here.
Used by `engine/engine.py`.
"""

from collections.abc import Collection

from llmcli.sampling import SamplingParams
from llmcli.scheduler.step import SampleSpec, SequenceSlice, Step
from llmcli.text.grammar import GrammarCompiler, Matcher, without
from llmcli.text.tokenizer import Tokenizer


class Constraints:
    """The matchers of all open sequences that have a form to keep to.

    Args:
        vocab_size: of the model.
        eos_ids: the ids that end a sequence.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_ids: Collection[int]) -> None:
        self._compiler = GrammarCompiler(tokenizer, vocab_size, eos_ids)
        self._eos_ids = frozenset(eos_ids)
        self._matchers: dict[int, Matcher] = {}

    def check(self, params: SamplingParams) -> None:
        """Compile a form, for its errors; safe to call from any thread.

        Raises:
            RequestError: it can not be followed.
        """
        if params.structured is not None:
            self._compiler.matcher(params.structured)

    def open(self, seq_id: int, params: SamplingParams) -> None:
        """Begin a sequence."""
        if params.structured is not None:
            self._matchers[seq_id] = self._compiler.matcher(params.structured)

    def close(self, seq_id: int) -> None:
        """Forget a sequence."""
        self._matchers.pop(seq_id, None)

    def accept(self, seq_id: int, token_id: int) -> bool:
        """Take in a token of a sequence; whether the answer is whole and nothing may follow.

        Raises:
            RequestError: the form can not be followed any further.
        """
        matcher = self._matchers.get(seq_id)
        if matcher is None:
            return False
        matcher.accept(token_id)
        return matcher.finished

    def await_tokens(self, step: Step) -> bool:
        """Whether masks of a step depend on tokens that are being drawn."""
        return any(part.late and part.seq_id in self._matchers for part in step.slices)

    def constrain(self, step: Step) -> Step:
        """The step with a mask for each token that it draws for a constrained sequence."""
        if not self._matchers:
            return step
        return Step(tuple(map(self._constrained, step.slices)))

    def _constrained(self, part: SequenceSlice) -> SequenceSlice:
        matcher = self._matchers.get(part.seq_id)
        if matcher is None or part.sample is None:
            return part
        return part._replace(sample=self._masked(part.sample, matcher))

    def _masked(self, sample: SampleSpec, matcher: Matcher) -> SampleSpec:
        """The form goes first: what min_tokens and ignore_eos ban may be drawn where nothing else would fit it."""
        banned = self._eos_ids.union(sample.banned_ids) if sample.params.ignore_eos else sample.banned_ids
        allowed = matcher.allowed
        if banned:
            allowed = without(allowed, banned) or allowed
        return sample._replace(banned_ids=(), allowed=allowed)
