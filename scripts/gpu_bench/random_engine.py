"""Engines with random weights in a real model's shape, made on the device: nothing is downloaded, or read from a disk.

Owns the shapes and how weights are drawn. Knows nothing of measuring. Called by `bench_engine.py`.
"""

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmcli.config import MIB, EngineConfig
from llmcli.engine.engine import Engine
from llmcli.hardware import read_hardware_facts
from llmcli.hub.models import resolve_model
from llmcli.model.decoder import Decoder
from llmcli.model.facts import read_model_facts
from llmcli.model.linear import Int4, merge
from llmcli.model.rope import build_cos_sin
from llmcli.model.spec import ModelSpec, read_model_spec
from llmcli.model.weights import DecoderWeights, LayerWeights
from llmcli.plan import resolve
from llmcli.runtime.cuda_graphs import CudaGraphs
from llmcli.runtime.decode_graphs import DecodeGraphs
from llmcli.runtime.kv_memory import allocate_kv_cache
from llmcli.runtime.runner import Runner
from llmcli.scheduler.scheduler import Scheduler, SchedulerConfig
from llmcli.text.tokenizer import load_tokenizer
from llmcli_kernels import KernelSet
from scripts.gpu_bench.shapes import BLOCK, GROUP, Layer, random_weight
from tests.tiny_models import not_captured

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 16384,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float16",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama-3-8b": LLAMA | {"intermediate_size": 14336, "num_key_value_heads": 8, "vocab_size": 128256},
    "llama-2-7b": LLAMA | {"intermediate_size": 11008, "num_key_value_heads": 32, "vocab_size": 32000},
}
DRY_SIZES = {
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 256,
}
STD = 0.02  # of float weights


@dataclass(frozen=True)
class Room:
    """What an engine has room for: sequences at once, tokens of each, tokens of all, tokens of a step."""

    sequences: int
    length: int
    tokens: int
    budget: int


def config_of(name: str, dry: bool) -> dict[str, Any]:
    return CONFIGS[name] | (DRY_SIZES if dry else {})


def random_engine(
    name: str, kernels: KernelSet, room: Room, *, int4: bool, dry: bool, **loop: bool
) -> Engine:
    """An engine on the GPU, or in a dry run on the CPU.

    Args:
        loop: enforce_eager, async_scheduling, as in `EngineConfig`.
    """
    spec = _spec(config_of(name, dry))
    bundled = resolve_model(None)
    plan = resolve(
        EngineConfig(device="cpu", kv_cache_memory=256 * MIB),
        read_model_facts(bundled.path, read_model_spec(bundled.path)),
        read_hardware_facts(None),
    )
    device = "cpu" if dry else "cuda"
    plan = replace(
        plan,
        dtype="float16",
        kv_cache_dtype="float16",
        device=device,
        kernels=kernels.name,
        max_model_len=room.length,
        max_num_seqs=room.sequences,
        max_num_batched_tokens=room.budget,
        block_size=BLOCK,
        num_blocks=room.tokens // BLOCK + room.sequences,
        async_scheduling=loop.get("async_scheduling", True),
    )
    cache = allocate_kv_cache(plan, spec)
    cos_sin = build_cos_sin(spec.rope, room.length).to(device)
    with torch.device(device):
        weights = _weights(spec, kernels, int4)
    decoder = Decoder(spec, weights, kernels, cos_sin)
    graphs = None
    if not loop.get("enforce_eager"):
        capture = not_captured if dry else CudaGraphs(cos_sin.device)
        graphs = DecodeGraphs(decoder, cache, room.sequences, room.length, capture)
    limits = SchedulerConfig(
        num_blocks=plan.num_blocks,
        block_size=BLOCK,
        max_num_seqs=room.sequences,
        max_num_batched_tokens=room.budget,
        max_model_len=room.length,
    )
    return Engine(
        model=bundled,
        spec=spec,
        config=plan,
        tokenizer=load_tokenizer(bundled.path),
        scheduler=Scheduler(limits),
        runner=Runner(decoder, cache, BLOCK, graphs),
        generation_defaults={},
        eos_ids=frozenset({2}),
    )


def _spec(config: dict[str, Any]) -> ModelSpec:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        return read_model_spec(Path(folder))


def _weights(spec: ModelSpec, kernels: KernelSet, int4: bool) -> DecoderWeights:
    hidden, inner = spec.hidden_size, spec.intermediate_size
    q, kv = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim

    def matrix(n: int, k: int, quantized: bool = int4) -> Tensor | Int4:
        group = min(GROUP, k)
        return random_weight(Layer("", n, k), group) if quantized else _normal(n, k)

    def linear(k: int, *widths: int, quantized: bool = int4) -> Any:
        return merge([matrix(n, k, quantized) for n in widths], [None] * len(widths), kernels, torch.float16)

    ones = torch.ones(hidden, dtype=torch.float16)
    layers = [
        LayerWeights(
            input_norm=ones,
            qkv=linear(hidden, q, kv, kv),
            qk_norm=None,
            o=linear(q, hidden),
            post_norm=ones,
            gate_up=linear(hidden, inner, inner),
            down=linear(inner, hidden),
        )
        for _ in range(spec.num_layers)
    ]
    head = linear(hidden, spec.vocab_size, quantized=False)
    return DecoderWeights(_normal(spec.vocab_size, hidden), tuple(layers), ones, head)


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float16) * STD
