"""Files of small repositories with real headers: a Llama of two layers, dense or AWQ, its weights all zero."""

import json
import math
import struct
from typing import Any

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
    "dtype": "bfloat16",
}
AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm"}}
NUM_PARAMETERS = 2 * 512 * 64 + 64 + 2 * (2 * 64 + 4 * 64 * 64 + 3 * 64 * 128)
ITEM_BYTES = {"BF16": 2, "F16": 2, "I32": 4}
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


def repository(config: dict[str, Any] | None = None, *, layers: int = 2) -> dict[str, bytes]:
    """The files of a model; `config` is added to config.json."""
    whole = CONFIG | {"num_hidden_layers": layers} | (config or {})
    quantized = "quantization_config" in whole
    return {
        "config.json": json.dumps(whole).encode(),
        "generation_config.json": b'{"temperature": 0.7}',
        "tokenizer.json": b"{}",
        "tokenizer_config.json": json.dumps({"chat_template": TEMPLATE}).encode(),
        "model.safetensors": safetensors(tensors(layers, quantized)),
        "README.md": b"# model",
    }


def tensors(layers: int, quantized: bool) -> dict[str, tuple[str, list[int]]]:
    """Name -> dtype and shape, of a model with CONFIG's sizes."""
    found = {
        "model.embed_tokens.weight": ("BF16", [512, 64]),
        "model.norm.weight": ("BF16", [64]),
        "lm_head.weight": ("BF16", [512, 64]),
    }
    for layer in range(layers):
        start = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{start}.{norm}.weight"] = ("BF16", [64])
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            found |= _matrix(f"{start}.self_attn.{name}", 64, 64, quantized)
        for name, (n, k) in {"gate_proj": (128, 64), "up_proj": (128, 64), "down_proj": (64, 128)}.items():
            found |= _matrix(f"{start}.mlp.{name}", n, k, quantized)
    return found


def safetensors(shapes: dict[str, tuple[str, list[int]]], metadata: int = 0) -> bytes:
    """A file of the format, all zeros.

    Args:
        metadata: characters to put into the header, so that it is long.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt" + "x" * metadata}}
    position = 0
    for name, (dtype, shape) in shapes.items():
        end = position + math.prod(shape) * ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(position)


def _matrix(name: str, n: int, k: int, quantized: bool) -> dict[str, tuple[str, list[int]]]:
    if not quantized:
        return {f"{name}.weight": ("BF16", [n, k])}
    return {
        f"{name}.qweight": ("I32", [k, n // 8]),
        f"{name}.qzeros": ("I32", [k // 64, n // 8]),
        f"{name}.scales": ("F16", [k // 64, n]),
    }
