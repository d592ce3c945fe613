"""The steps that compile all kernels before the first request are steps that a scheduler could have made."""

from itertools import pairwise
from typing import Any

import pytest

from llmcli.config import GIB, EngineConfig, HardwareFacts, ResolvedConfig
from llmcli.gpu_facts import NoGpu
from llmcli.plan import resolve
from llmcli.runtime.decode_graphs import buckets_up_to, is_decode
from llmcli.runtime.warm_up import NUM_BLOCKS, decode_steps, warm_up_steps
from tests.test_plan import LLAMA_7B_AWQ

MACHINE = HardwareFacts(
    total_memory=64 * GIB,
    free_memory=64 * GIB,
    num_cores=1,
    fast_bfloat16=True,
    native_kernels=False,
    gpu=NoGpu("none"),
)


def plan(**options: Any) -> ResolvedConfig:
    return resolve(EngineConfig(**options), LLAMA_7B_AWQ, MACHINE)


PLANS = {
    "defaults": plan(),
    "one sequence": plan(max_num_seqs=1, max_num_batched_tokens=1),
    "small": plan(max_model_len=40, max_num_seqs=3, max_num_batched_tokens=24, block_size=32),
    "long": plan(max_num_batched_tokens=4096),
}


@pytest.mark.parametrize("name", PLANS)
def test_every_step_keeps_within_the_plan(name: str) -> None:
    config = PLANS[name]
    for step in warm_up_steps(config):
        assert 1 <= step.num_tokens <= config.max_num_batched_tokens
        assert 1 <= len(step.slices) <= config.max_num_seqs
        for part in step.slices:
            assert part.end <= config.max_model_len
            assert len(part.block_ids) == -(-part.end // config.block_size)
            assert max(part.block_ids) < NUM_BLOCKS


def test_the_extremes_of_the_plan_and_both_ways_of_drawing_are_met() -> None:
    config = PLANS["long"]
    steps = warm_up_steps(config)
    assert {len(step.slices) for step in steps} >= {1, 2, 16, config.max_num_seqs}
    assert max(step.num_tokens for step in steps) == min(config.max_num_batched_tokens, config.max_model_len)
    assert max(part.end for step in steps for part in step.slices) == config.max_model_len
    drawn = {part.sample.params.greedy for step in steps for part in step.slices if part.sample}
    assert drawn == {True, False}


def test_a_decode_beside_a_prompt_is_met_with_the_shortest_and_the_longest_context() -> None:
    config = PLANS["long"]
    joined = [step for step in warm_up_steps(config) if {len(p.token_ids) for p in step.slices} == {1, 2}]
    assert {step.slices[0].end for step in joined} == {1, config.max_model_len}


@pytest.mark.parametrize("name", PLANS)
def test_one_step_has_as_many_sequences_and_tokens_as_a_step_may_have_and_all_tell_what_they_draw(
    name: str,
) -> None:
    config = PLANS[name]
    most = warm_up_steps(config)[-1]
    assert len(most.slices) == min(config.max_num_seqs, config.max_num_batched_tokens)
    assert config.max_num_batched_tokens - most.num_tokens < len(most.slices)
    assert all(part.sample is not None and part.sample.params.logprobs == 20 for part in most.slices)


@pytest.mark.parametrize("name", PLANS)
def test_steps_that_decode_are_those_that_graphs_are_made_of(name: str) -> None:
    config = PLANS[name]
    steps = decode_steps(config)
    assert all(is_decode(step) for step in steps)
    sizes = [len(step.slices) for step in steps]
    most = min(config.max_num_seqs, config.max_num_batched_tokens)
    assert (sizes[0], sizes[-1]) == (most, 1)
    assert all(
        any(smaller < size <= bucket for size in sizes)
        for smaller, bucket in pairwise((0, *buckets_up_to(most)))
    )
