"""Weights, the tensors of a step and what sampling makes lie on one device.

The device is torch's "meta": it computes shapes only, and refuses to mix its tensors with those of a CPU.
"""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcli.model.formats import awq
from llmcli.runtime.forward import build_batch
from llmcli.runtime.sampler import sample
from llmcli.sampling import SamplingParams
from llmcli.scheduler.step import SampleSpec, SequenceSlice, Step
from llmcli_kernels import select
from llmcli_kernels.sampling import SamplingBatch
from tests.tiny_models import (
    base_config,
    dense_checkpoint,
    load_runner,
    pack_gemm,
    pack_gemv,
    random_quantized,
    transformers_model,
)

DRAW = SampleSpec(
    SamplingParams(
        temperature=0.7,
        repetition_penalty=1.2,
        presence_penalty=0.5,
        frequency_penalty=0.1,
        logit_bias={3: 1.0},
    ),
    seed=0,
    choice=0,
    position=0,
    banned_ids=(1, 2),
    prompt_ids=(5, 6),
)


QWEN3 = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 16}


@pytest.mark.parametrize("changes", [{}, QWEN3], ids=["llama", "qwen3"])
def test_a_forward_pass_stays_on_the_device(changes: dict[str, Any], tmp_path: Path) -> None:
    config = base_config(num_hidden_layers=2, **changes)
    runner = load_runner(
        dense_checkpoint(tmp_path, config, transformers_model(config)), dtype="float16", device="meta"
    )
    step = Step((SequenceSlice(0, 0, (5, 6, 7), (0,), DRAW), SequenceSlice(1, 20, (9,), (3, 4), DRAW)))
    logits = runner.decoder.forward(build_batch(step, 16, runner.device), runner.cache)
    assert (logits.device.type, logits.shape) == ("meta", (2, config["vocab_size"]))


@pytest.mark.parametrize(
    ("pack", "normalise"), [(pack_gemm, awq.from_gemm), (pack_gemv, awq.from_gemv)], ids=["gemm", "gemv"]
)
@pytest.mark.parametrize("symmetric", [False, True])
def test_quantized_weights_are_normalised_on_the_device(pack: Any, normalise: Any, symmetric: bool) -> None:
    parts = {name: tensor.to("meta") for name, tensor in pack(random_quantized(16, 128, 64, seed=0)).items()}
    if symmetric:
        parts["qzeros"] = None
    weight = normalise(parts["qweight"], parts["qzeros"], parts["scales"], 64).plain()
    assert {tensor.device.type for tensor in (weight.q, weight.zeros, weight.scales)} == {"meta"}


def test_penalties_bans_and_parameters_are_put_where_the_logits_are() -> None:
    seen: list[SamplingBatch] = []

    def draw(logits: Tensor, batch: SamplingBatch) -> tuple[Tensor, Tensor]:
        assert logits.is_meta
        seen.append(batch)
        return torch.tensor([4, 5]), torch.tensor([True, False])

    kernels = replace(select("cpu", "reference"), sample=draw)
    tokens = sample(torch.empty(2, 30, device="meta"), [DRAW, DRAW], [7, 8], kernels)
    assert [(token.token_id, token.finite) for token in tokens] == [(4, True), (5, False)]
    parameters = [getattr(seen[0], field.name) for field in fields(SamplingBatch)]
    assert {tensor.device.type for tensor in parameters} == {"meta"}
