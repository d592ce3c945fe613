"""Times of batches on an engine whose every step takes one second and sixteen tokens."""

import random
from typing import Any

import pytest

from llmcli.errors import EngineError
from llmcli.jobs.bench.engine import BatchTimes, DecodeTimes, random_prompts, run_batch, run_decode_steps
from tests.jobs.manual_engine import ManualEngine


def batch(engine: ManualEngine, prompts: list[list[int]], *args: Any, **more: Any) -> BatchTimes:
    return run_batch(engine, prompts, *args, clock=engine.clock, **more)  # type: ignore[arg-type]


def decode(engine: ManualEngine, prompts: list[list[int]], *args: int) -> DecodeTimes:
    return run_decode_steps(engine, prompts, *args, clock=engine.clock)  # type: ignore[arg-type]


def test_a_prompt_of_two_steps_has_its_first_token_after_two_seconds() -> None:
    times = batch(ManualEngine(), [[7] * 32], 3)
    assert times == BatchTimes((2.0,), 4.0, num_computed=32, num_output=3, num_early=1)


def test_the_second_sequence_waits_for_the_prompt_of_the_first() -> None:
    # steps 1 and 2: prompt of A; 3, 4, 5: a token of A and 15, 15, 2 tokens of B's prompt; A ends in step 5, B in 8
    times = batch(ManualEngine(), [[1] * 32, [2] * 32], 4)
    assert times == BatchTimes((2.0, 5.0), 8.0, num_computed=64, num_output=8, num_early=5)


def test_each_sequence_may_have_a_length_of_its_own() -> None:
    assert batch(ManualEngine(), [[1], [2]], [5, 2]).num_output == 7


def test_what_was_cached_before_takes_no_time_and_is_not_counted() -> None:
    prompt = list(range(48))
    times = batch(ManualEngine(), [prompt], 1, cached=[prompt[:32]])
    assert (times.total_s, times.num_computed) == (1.0, 16)


def test_the_cache_of_one_batch_is_empty_for_the_next() -> None:
    engine = ManualEngine()
    first, second = (batch(engine, [[3] * 32], 1) for _ in range(2))
    assert first == second


def test_finished_sequences_are_told_with_their_tokens() -> None:
    told: list[tuple[int, int]] = []
    batch(ManualEngine(), [[1] * 3, [2] * 5], [1, 2], on_done=lambda *tokens: told.append(tokens))
    assert told == [(3, 1), (5, 2)]


def test_only_steps_of_the_full_batch_are_timed() -> None:
    engine = ManualEngine()
    # the first token of B comes in step 5; the four steps after it give two tokens each
    times = decode(engine, [[1] * 32, [2] * 32], 4, 20)
    assert times == DecodeTimes((2.0, 5.0), num_output=8, decode_s=4.0)
    assert not engine.has_work


def test_a_failed_request_is_an_error_and_leaves_nothing_behind() -> None:
    engine = ManualEngine(fails_at=2)
    with pytest.raises(EngineError, match="a benchmark request failed: gone"):
        batch(engine, [[1] * 32], 3)
    assert not engine.has_work


def test_a_stopped_batch_leaves_nothing_behind() -> None:
    engine = ManualEngine(interrupt_at=2)
    with pytest.raises(KeyboardInterrupt):
        decode(engine, [[1] * 32], 3, 9)
    assert not engine.has_work


def test_prompts_depend_on_nothing_but_the_seed() -> None:
    first, second = (random_prompts(random.Random(5), 100, 3, 4) for _ in range(2))
    assert first == second
    assert [len(prompt) for prompt in first] == [4, 4, 4]
    assert all(0 <= token < 100 for prompt in first for token in prompt)
    assert random_prompts(random.Random(6), 100, 3, 4) != first
