"""The steps that compile all kernels before the first request are steps that a scheduler could have made."""

from dataclasses import replace
from typing import Any

import pytest

from llmcli.config import GIB, EngineConfig, HardwareFacts, ResolvedConfig
from llmcli.gpu_facts import NoGpu
from llmcli.plan import resolve
from llmcli.runtime.warm_up import warm_up_steps
from tests.fakes import OracleRunner
from tests.test_plan import LLAMA_7B_AWQ, TINY

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
    "few blocks": replace(resolve(EngineConfig(), TINY, MACHINE), num_blocks=8),
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
            assert max(part.block_ids) < config.num_blocks
        blocks = [block for part in step.slices for block in part.block_ids]
        assert len(blocks) == len(set(blocks))


def test_the_extremes_of_the_plan_and_both_ways_of_drawing_are_met() -> None:
    config = PLANS["long"]
    steps = warm_up_steps(config)
    assert {len(step.slices) for step in steps} >= {1, 2, 16, config.max_num_seqs}
    assert max(step.num_tokens for step in steps) == min(config.max_num_batched_tokens, config.max_model_len)
    assert max(part.end for step in steps for part in step.slices) == config.max_model_len
    drawn = {part.sample.params.greedy for step in steps for part in step.slices if part.sample}
    assert drawn == {True, False}


def test_the_steps_of_prompts_run_on_the_oracle() -> None:
    config = PLANS["small"]
    for step in warm_up_steps(config):
        if all(part.start == 0 for part in step.slices):
            oracle = OracleRunner(config.num_blocks, config.block_size)
            for part in step.slices:
                oracle.expect(part.seq_id, part.token_ids)
            assert len(oracle.run(step).tokens) == len(step.slices)
