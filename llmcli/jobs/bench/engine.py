"""Batches through an engine against the clock: what every benchmark in this process is made of.

Prompts are token ids, drawn at random from a fixed seed or made by the caller; the end of sequence is ignored and
sampling is greedy. A time holds the engine's whole step: scheduling, the forward pass, sampling and incremental
detokenizing. Tokenizing is not in it: prompts come as ids. Knows no plan and no table; `jobs/bench*.py` call it.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmcli.errors import EngineError
from llmcli.outputs import TokenEvent
from llmcli.sampling import SamplingParams

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine

Clock = Callable[[], float]
Prompt = Sequence[int]

INCLUDED = (
    "the times hold scheduling, the forward pass, greedy sampling and detokenizing;"
    " not tokenizing: prompts are random token ids"
)


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """How long one batch took, in seconds from its start.

    Attributes:
        first_token_s: when each sequence had its first token, in the order of the prompts.
        total_s: when the last sequence ended.
        num_computed: prompt tokens that were computed: those of the prefix cache are not.
        num_output: tokens that came out.
        num_early: how many of them had come when the last sequence had its first.
    """

    first_token_s: tuple[float, ...]
    total_s: float
    num_computed: int
    num_output: int
    num_early: int


@dataclass(frozen=True, slots=True)
class DecodeTimes:
    """Steps of a batch in which every sequence gets one token each time.

    Attributes:
        first_token_s: as in BatchTimes.
        num_output: tokens that came out in `decode_s` seconds.
    """

    first_token_s: tuple[float, ...]
    num_output: int
    decode_s: float


def random_prompts(source: random.Random, vocab_size: int, count: int, length: int) -> list[list[int]]:
    """Prompts of ids that nothing but the seed decides."""
    return [[source.randrange(vocab_size) for _ in range(length)] for _ in range(count)]


def run_batch(
    engine: "Engine",
    prompts: Sequence[Prompt],
    num_output: int | Sequence[int],
    *,
    cached: Sequence[Prompt] = (),
    clock: Clock = time.perf_counter,
    on_done: Callable[[int, int], None] | None = None,
) -> BatchTimes:
    """Generate from all prompts, to the end.

    Args:
        num_output: tokens of each sequence: one number for all, or one for each.
        cached: beginnings of prompts that are computed before the clock starts, and then in the prefix cache.
        on_done: told the prompt and output tokens of each sequence that has ended.

    Raises:
        EngineError: a request failed.
        RequestError: a prompt is not one for this engine.
    """
    lengths = [num_output] * len(prompts) if isinstance(num_output, int) else num_output
    with _open(engine) as ids:
        for prompt in cached:
            _compute(engine, prompt)
        started = clock()
        for prompt, length in zip(prompts, lengths, strict=True):
            ids.append(engine.add(prompt, _params(length)))
        places = {request_id: place for place, request_id in enumerate(ids)}
        first: dict[int, float] = {}
        num_computed = produced = num_early = 0
        while engine.has_work:
            events = _step(engine)
            now = clock() - started
            waiting = len(first) < len(ids)
            for event in events:
                produced += len(event.token_ids)
                if event.token_ids:
                    first.setdefault(places[event.request_id], now)
                if event.stats is not None:
                    num_computed += event.stats.num_prompt_tokens - event.stats.num_cached_tokens
                    if on_done is not None:
                        on_done(event.stats.num_prompt_tokens, event.stats.num_output_tokens)
            num_early = produced if waiting else num_early
        total_s = clock() - started
        first_token_s = tuple(first[place] for place in range(len(ids)))
        return BatchTimes(first_token_s, total_s, num_computed, produced, num_early)


def run_decode_steps(
    engine: "Engine",
    prompts: Sequence[Prompt],
    num_steps: int,
    max_tokens: int,
    *,
    clock: Clock = time.perf_counter,
) -> DecodeTimes:
    """Time `num_steps` steps from when every sequence has its first token; then drop the batch.

    So each timed step decodes the full batch: none of them has a prompt in it, and no sequence has ended early.

    Args:
        max_tokens: what each sequence may generate: the steps, and those that the first sequences take while the
            last ones still wait for their prompt.

    Raises:
        EngineError: a request failed.
    """
    with _open(engine) as ids:
        started = now = clock()
        for prompt in prompts:
            ids.append(engine.add(prompt, _params(max_tokens)))
        first: dict[str, float] = {}
        while len(first) < len(ids):
            events = _step(engine)
            now = clock()
            for event in events:
                if event.token_ids:
                    first.setdefault(event.request_id, now - started)
        produced = 0
        for _ in range(num_steps):
            produced += sum(len(event.token_ids) for event in _step(engine))
        return DecodeTimes(tuple(first[request_id] for request_id in ids), produced, clock() - now)


@contextmanager
def _open(engine: "Engine") -> Iterator[list[str]]:
    """An empty prefix cache, and a list of request ids none of which outlives this."""
    engine.reset_prefix_cache()
    ids: list[str] = []
    try:
        yield ids
    finally:
        for request_id in ids:
            engine.abort(request_id)
        while engine.has_work:  # only what was aborted: nothing is computed any more
            engine.step()


def _compute(engine: "Engine", prompt: Prompt) -> None:
    engine.add(prompt, _params(1))
    while engine.has_work:
        _step(engine)


def _params(num_output: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=num_output, ignore_eos=True)


def _step(engine: "Engine") -> list[TokenEvent]:
    events = engine.step()
    failed = next((event.error for event in events if event.error is not None), None)
    if failed is not None:
        raise EngineError(f"a benchmark request failed: {failed}")
    return events
