"""Perplexity layer by layer is what transformers computes with the whole model, for every family."""

import math

import pytest
import torch

from llmcli.errors import CheckpointError
from llmcli.model.spec import read_model_spec
from llmcli.quantize.perplexity import perplexity
from llmcli.quantize.reader import LayerReader
from tests.quantize.small_models import FAMILIES, small_config, small_model
from tests.tiny_models import save_checkpoint, stored, transformers_model

YARN = {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}
MODELS = FAMILIES | {
    "rope linear": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "rope yarn": YARN,
    "windows in upper layers": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 6,
        "max_window_layers": 1,
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_perplexity_is_that_of_transformers(tmp_path, name: str) -> None:
    folder = small_model(tmp_path, **MODELS[name])
    texts = torch.randint(0, 300, (5, 40), generator=torch.Generator().manual_seed(1))
    model = transformers_model(small_config(**MODELS[name]))
    with torch.inference_mode():
        expected = math.exp(model(texts, labels=texts).loss)
    found = perplexity(LayerReader(folder, read_model_spec(folder)), texts)
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_weight_that_is_no_number_is_named(tmp_path) -> None:
    folder = small_model(tmp_path)
    tensors = stored(folder)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = math.nan
    save_checkpoint(folder, small_config(), tensors)
    reader = LayerReader(folder, read_model_spec(folder))
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        perplexity(reader, torch.zeros(1, 4, dtype=torch.int64))


def test_a_layer_whose_output_is_no_number_is_named(tmp_path) -> None:
    folder = small_model(tmp_path)
    tensors = stored(folder)
    tensors["model.layers.2.self_attn.v_proj.weight"] *= 1e30
    tensors["model.layers.2.self_attn.o_proj.weight"] *= 1e30
    save_checkpoint(folder, small_config(), tensors)
    with pytest.raises(CheckpointError, match="layer 2 gives NaN or infinity"):
        perplexity(LayerReader(folder, read_model_spec(folder)), torch.zeros(1, 4, dtype=torch.int64))
