"""Dense models that 4 bits can hold, of every family, and what a quantized folder stands for by autoawq's reading."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.awq_truth import load_awq_packing
from tests.tiny_models import base_config, dense_checkpoint, transformers_model, write_tokenizer

GROUP = 32
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, tied, with biases": {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    "llama, no shared heads": {"num_key_value_heads": 4},
    "llama 3": {
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 9},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
}


def small_config(**changes: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 300}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    return base_config(**(sizes | heads | changes))


def small_model(folder: Path, **changes: Any) -> Path:
    """A whole dense model, tokenizer and chat template included."""
    config = small_config(**changes)
    dense_checkpoint(folder, config, transformers_model(config))
    write_tokenizer(folder, 300, TEMPLATE)
    return folder


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Of all files of a folder, by safetensors' own reader."""
    return {
        name: tensor
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def dequantized(folder: Path, group: int = GROUP) -> dict[str, torch.Tensor]:
    """The dense float32 tensors that a quantized folder stands for, by autoawq's unpacking."""
    packing, tensors = load_awq_packing(), all_tensors(folder)
    dense = {}
    for name, tensor in tensors.items():
        if name.endswith(".qweight"):
            layer = name.removesuffix(".qweight")
            scales = tensors[f"{layer}.scales"].float()
            weight = packing.dequantize_gemm(tensor, tensors[f"{layer}.qzeros"], scales, 4, group)
            dense[f"{layer}.weight"] = weight.t().contiguous()
        elif not name.endswith((".qzeros", ".scales")):
            dense[name] = tensor.float()
    return dense
