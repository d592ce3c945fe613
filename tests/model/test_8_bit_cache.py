"""With a KV cache of 8 bits the logits are those of transformers with rounded keys and values, near those without."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

from tests.tiny_models import base_config, dense_checkpoint, load_runner, logits, transformers_model

FAMILIES = {
    "llama": {"num_key_value_heads": 1},
    "qwen3": {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 24},
    "mistral": {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 9},
}
# Our keys differ from theirs in the last digit of float32, which now and then rounds one to the other side.
SAME = 5e-4
NEAR = {"int8": 0.035, "fp8": 0.17}


def rounded(x: torch.Tensor, storage: str) -> torch.Tensor:
    """What is left of each vector after storing it in 8 bits with a scale."""
    largest = 127 if storage == "int8" else 448
    scale = x.abs().amax(-1, keepdim=True) / largest
    scaled = x / scale
    return (scaled.round() if storage == "int8" else scaled.to(torch.float8_e4m3fn).float()) * scale


def distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
@pytest.mark.parametrize("storage", ["int8", "fp8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers_with_rounded_keys_and_values(
    tmp_path: Path, family: str, storage: Any, kernels: str
) -> None:
    def attend(module: Any, q: Any, k: Any, v: Any, mask: Any, **more: Any) -> Any:
        return eager_attention_forward(module, q, rounded(k, storage), rounded(v, storage), mask, **more)

    AttentionInterface.register(f"rounded_{storage}", attend)
    AttentionMaskInterface.register(f"rounded_{storage}", eager_mask)
    config = base_config(**FAMILIES[family])
    model = transformers_model(config)
    runner = load_runner(dense_checkpoint(tmp_path, config, model), kernels, kv_cache_dtype=storage)
    ids = torch.randint(3, 211, (45,), generator=torch.Generator().manual_seed(5)).tolist()
    actual = logits(runner, ids)
    exact = model(torch.tensor([ids])).logits[0].detach()
    model.set_attn_implementation(f"rounded_{storage}")
    expected = model(torch.tensor([ids])).logits[0].detach()
    assert distance(actual, expected) < SAME < distance(actual, exact) < NEAR[storage]
