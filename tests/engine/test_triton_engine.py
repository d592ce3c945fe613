"""The whole engine with the Triton kernels draws the greedy ids that the reference kernels lead to.

Scheduler, runner, decoder and sampler as they run on a GPU, in chunks and with sequences that join; where there is
no GPU, the kernels run in Triton's interpreter on CPU tensors.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from llmcli.engine.engine import Engine
from llmcli.hub.models import LocalModel, resolve_model
from llmcli.model.spec import read_model_spec
from llmcli.sampling import SamplingParams
from llmcli.scheduler.scheduler import Scheduler, SchedulerConfig
from llmcli.text.tokenizer import load_tokenizer
from tests.tiny_models import (
    awq_checkpoints,
    base_config,
    dense_checkpoint,
    load_runner,
    make_plan,
    transformers_model,
    write_tokenizer,
)

pytest.importorskip("triton")
# The interpreter multiplies what a mask takes out afterwards: memory that nobody has written yet.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in matmul:RuntimeWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OPTIONS: dict[str, Any] = {"dtype": "float16", "max_num_batched_tokens": 16, "max_model_len": 48}
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}
QWEN2 = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
QWEN3 = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 64}
FIRST, SECOND = list(range(40, 61)), [7, 8, 9]  # the first takes two chunks


def make_engine(folder: Path, kernels: str) -> Engine:
    spec, plan = read_model_spec(folder), make_plan(folder, **OPTIONS)
    return Engine(
        model=LocalModel("tiny", folder, None, "folder"),
        spec=spec,
        config=plan,
        tokenizer=load_tokenizer(folder),
        scheduler=Scheduler(
            SchedulerConfig(
                num_blocks=plan.num_blocks,
                block_size=plan.block_size,
                max_num_seqs=plan.max_num_seqs,
                max_num_batched_tokens=plan.max_num_batched_tokens,
                max_model_len=plan.max_model_len,
            )
        ),
        runner=load_runner(folder, kernels, device=DEVICE if kernels == "triton" else "cpu", **OPTIONS),
        generation_defaults={},
        eos_ids=frozenset({2}),
    )


def joined_ids(engine: Engine, first: list[int], second: list[int], count: int) -> dict[str, list[int]]:
    """Greedy ids of two requests, the second of which comes when the first has begun to decode."""
    params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
    found: dict[str, list[int]] = {"first": [], "second": []}
    engine.add(first, params, request_id="first")
    while engine.has_work:
        for event in engine.step():
            assert event.error is None, event.error
            found[event.request_id] += event.token_ids
            if event.request_id == "first" and len(found["first"]) == 1:
                engine.add(second, params, request_id="second")
    return found


def dense(folder: Path, **changes: Any) -> Path:
    config = base_config(**(SIZES | changes))
    return dense_checkpoint(folder, config, transformers_model(config))


def int4(folder: Path, **changes: Any) -> Path:
    return awq_checkpoints(folder, base_config(**(SIZES | changes)), "gemm", 32)[0]


@pytest.mark.parametrize(
    ("make", "changes"),
    [(int4, {}), (int4, QWEN2), (dense, QWEN3)],
    ids=["int4", "int4 with biases", "dense with norms of q and k"],
)
def test_the_ids_are_those_of_the_reference_kernels(
    make: Any, changes: dict[str, Any], tmp_path: Path
) -> None:
    folder = make(tmp_path, **changes)
    write_tokenizer(folder, SIZES["vocab_size"])
    wanted = joined_ids(make_engine(folder, "reference"), FIRST, SECOND, 3)
    assert [len(ids) for ids in wanted.values()] == [3, 3]
    assert joined_ids(make_engine(folder, "triton"), FIRST, SECOND, 3) == wanted


def test_the_bundled_model_begins_as_with_the_reference_kernels() -> None:
    folder = resolve_model(None).path
    engine = make_engine(folder, "reference")
    first, second = engine.tokenizer.encode("Once upon a time"), engine.tokenizer.encode("Tell me")
    wanted = joined_ids(engine, first, second, 2)
    assert joined_ids(make_engine(folder, "triton"), first, second, 2) == wanted
