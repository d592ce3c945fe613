"""Every supported architecture computes what transformers computes, in float32."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import base_config, dense_checkpoint, greedy, load_runner, logits, transformers_model

QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
GROUPED = {"num_attention_heads": 10, "num_key_value_heads": 2, "head_dim": 22}

MODELS: dict[str, dict[str, Any]] = {
    "llama, five heads, untied": {},
    "llama, tied": {"tie_word_embeddings": True},
    "llama, head size of its own": GROUPED,
    "llama with biases": {"attention_bias": True, "mlp_bias": True},
    "llama, one kv head": {"num_key_value_heads": 1},
    "llama, rope linear": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "llama, rope dynamic": {
        "rope_scaling": {"type": "dynamic", "factor": 4.0},
        "max_position_embeddings": 40,
    },
    "llama 3, rope llama3": {
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "llama, rope yarn": {
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    },
    "llama, rope yarn with all its numbers": {
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 3.0,
            "original_max_position_embeddings": 40,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "attention_factor": 1.3,
        },
    },
    "mistral, sliding window": MISTRAL | GROUPED | {"sliding_window": 9},
    "mistral, no window": MISTRAL | GROUPED | {"sliding_window": None},
    "qwen2": QWEN2 | {"num_attention_heads": 10, "num_key_value_heads": 2},
    "qwen2, tied, windows in upper layers": QWEN2
    | {"tie_word_embeddings": True, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "qwen3": QWEN3 | GROUPED,
    "qwen3, tied, biases": QWEN3 | GROUPED | {"tie_word_embeddings": True, "attention_bias": True},
}


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS.keys())
def test_logits_and_greedy_tokens_equal_those_of_transformers(
    tmp_path: Path, changes: dict[str, Any], kernels: str
) -> None:
    config = base_config(**changes)
    model = transformers_model(config)
    runner = load_runner(dense_checkpoint(tmp_path, config, model), kernels)
    prompt = torch.randint(
        0, config["vocab_size"], (29,), generator=torch.Generator().manual_seed(7)
    ).tolist()
    with torch.inference_mode():
        expected = model(torch.tensor([prompt])).logits[0]
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=64, do_sample=False, eos_token_id=None)
    torch.testing.assert_close(logits(runner, prompt), expected, atol=1e-4, rtol=1e-4)
    assert greedy(runner, prompt, 64) == ids[0, len(prompt) :].tolist()


def test_a_bias_that_is_not_zero_changes_the_logits(tmp_path: Path) -> None:
    """The models above would pass with biases ignored if theirs were zero."""
    config = base_config(**MODELS["qwen2"])
    model = transformers_model(config)
    before = logits(load_runner(dense_checkpoint(tmp_path / "a", config, model)), [5, 6, 7])
    with torch.no_grad():
        model.model.layers[0].self_attn.k_proj.bias.zero_()
        model.model.layers[0].self_attn.v_proj.bias.zero_()
    after = logits(load_runner(dense_checkpoint(tmp_path / "b", config, model)), [5, 6, 7])
    assert (before - after).abs().max() > 0.01
