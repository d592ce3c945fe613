"""A step becomes one row per token: where it stands, where its keys go, what it may see, which rows are drawn."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmcli.config import MIB, EngineConfig, HardwareFacts
from llmcli.errors import DoesNotFitError
from llmcli.gpu_facts import NoGpu
from llmcli.model.facts import read_model_facts
from llmcli.model.spec import read_model_spec
from llmcli.plan import resolve
from llmcli.runtime.forward import build_batch
from llmcli.runtime.kv_memory import allocate_kv_cache
from llmcli.runtime.runner import Runner
from llmcli.sampling import SamplingParams
from llmcli.scheduler.step import SampleSpec, SequenceSlice, Step, StepResult
from tests.tiny_models import base_config, dense_checkpoint, load_runner, transformers_model

DRAW = SampleSpec(SamplingParams(temperature=0), seed=0, choice=0, position=0)


def test_a_step_of_three_sequences_worked_out_by_hand() -> None:
    step = Step(
        (
            SequenceSlice(1, 0, (10, 11, 12, 13, 14), (3, 7), None),  # a chunk of a prompt
            SequenceSlice(2, 8, (20,), (5, 1, 0), DRAW),  # the first token of a new block
            SequenceSlice(3, 2, (30, 31), (4,), DRAW),  # what a prefix hit left to compute
        )
    )
    batch = build_batch(step, block_size=4)
    assert batch.token_ids.tolist() == [10, 11, 12, 13, 14, 20, 30, 31]
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 8, 2, 3]
    assert batch.slots.tolist() == [12, 13, 14, 15, 28, 0, 18, 19]
    assert batch.attention.query_starts == (0, 5, 6, 8)
    assert batch.attention.kv_lens == (5, 9, 4)
    assert batch.attention.block_tables.tolist() == [[3, 7, 0], [5, 1, 0], [4, 0, 0]]
    assert batch.sample_rows.tolist() == [5, 7]
    tensors = (batch.token_ids, batch.positions, batch.slots, batch.sample_rows, batch.attention.block_tables)
    assert {tensor.dtype for tensor in tensors} == {torch.int64}


def test_a_step_that_draws_nothing_has_no_sample_rows() -> None:
    batch = build_batch(Step((SequenceSlice(1, 4, (9, 9), (0, 1), None),)), block_size=4)
    assert batch.sample_rows.tolist() == []
    assert batch.sample_rows.dtype == torch.int64


@st.composite
def steps(draw: st.DrawFn) -> tuple[Step, int]:
    """Sequences with blocks of their own, each with some tokens computed and some to compute."""
    block_size = draw(st.sampled_from([4, 8]))
    shapes = draw(
        st.lists(st.tuples(st.integers(0, 30), st.integers(1, 20), st.booleans()), min_size=1, max_size=5)
    )
    free = iter(draw(st.permutations(range(100))))
    slices = []
    for seq_id, (start, count, sampled) in enumerate(shapes):
        blocks = tuple(next(free) for _ in range(-(-(start + count) // block_size)))
        slices.append(SequenceSlice(seq_id, start, tuple(range(count)), blocks, DRAW if sampled else None))
    return Step(tuple(slices)), block_size


@given(steps())
def test_every_row_is_where_its_sequences_blocks_say(drawn: tuple[Step, int]) -> None:
    step, block_size = drawn
    batch = build_batch(step, block_size)
    row, sample_rows = 0, []
    for part in step.slices:
        for offset, token_id in enumerate(part.token_ids):
            position = part.start + offset
            slot = part.block_ids[position // block_size] * block_size + position % block_size
            found = (batch.token_ids[row], batch.positions[row], batch.slots[row])
            assert tuple(map(int, found)) == (token_id, position, slot)
            row += 1
        if part.sample is not None:
            sample_rows.append(row - 1)
    assert batch.token_ids.shape == (row,)
    assert batch.sample_rows.tolist() == sample_rows


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    config = base_config(num_hidden_layers=1)
    return load_runner(dense_checkpoint(tmp_path_factory.mktemp("model"), config, transformers_model(config)))


def test_a_step_that_draws_nothing_fills_the_cache_and_returns_nothing(runner: Runner) -> None:
    keys = runner.cache.layers[0].keys.zero_()
    step = Step((SequenceSlice(1, 0, (5, 6, 7), (2,), None),))
    assert runner.run(step) == StepResult(())
    written = keys.abs().sum(dim=(1, 3)) > 0
    assert written.nonzero().tolist() == [[2, 0], [2, 1], [2, 2]]


def test_results_come_in_the_order_of_the_slices_that_draw(runner: Runner) -> None:
    slices = (
        SequenceSlice(9, 0, (5, 6), (1,), DRAW),
        SequenceSlice(4, 0, (7,), (2,), None),
        SequenceSlice(2, 0, (8, 9, 10), (3,), DRAW),
    )
    result = runner.run(Step(slices))
    assert [token.seq_id for token in result.tokens] == [9, 2]
    for part in (slices[0], slices[2]):
        alone = runner.run(Step((part,))).tokens[0]
        assert alone in result.tokens


@pytest.mark.parametrize(
    ("kv_cache_dtype", "storage"),
    [("auto", torch.bfloat16), ("int8", torch.int8), ("fp8", torch.float8_e4m3fn)],
)
def test_the_cache_has_the_shape_and_the_bytes_of_the_plan(
    tmp_path: Path, kv_cache_dtype: Any, storage: torch.dtype
) -> None:
    config = base_config(num_attention_heads=10, num_key_value_heads=2, head_dim=22)
    folder = dense_checkpoint(tmp_path, config, transformers_model(config))
    spec = read_model_spec(folder)
    hardware = HardwareFacts(
        total_memory=1 << 40,
        free_memory=1 << 40,
        num_cores=1,
        fast_bfloat16=True,
        native_kernels=False,
        gpu=NoGpu("none"),
    )
    options = EngineConfig(
        kv_cache_memory=3 * MIB, block_size=8, dtype="bfloat16", kv_cache_dtype=kv_cache_dtype
    )
    plan = resolve(options, read_model_facts(folder), hardware)
    cache = allocate_kv_cache(plan, spec)
    assert len(cache.layers) == 3
    tensors = [tensor for layer in cache.layers for tensor in vars(layer).values() if tensor is not None]
    assert {layer.keys.dtype for layer in cache.layers} == {storage}
    assert {layer.keys.shape for layer in cache.layers} == {(plan.num_blocks, 2, 8, 22)}
    assert len({tensor.data_ptr() for tensor in tensors}) == len(tensors)
    assert sum(tensor.nbytes for tensor in tensors) == plan.kv_bytes <= 3 * MIB
    with pytest.raises(DoesNotFitError, match="can not be reserved"):
        allocate_kv_cache(replace(plan, num_blocks=1 << 45), spec)
