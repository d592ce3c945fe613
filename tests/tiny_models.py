"""Small random checkpoints with awkward sizes, and what transformers computes with them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from llmcli.config import EngineConfig, ResolvedConfig
from llmcli.hardware import read_hardware_facts
from llmcli.model.decoder import Decoder
from llmcli.model.facts import read_model_facts
from llmcli.model.rope import build_cos_sin
from llmcli.model.spec import read_model_spec
from llmcli.model.weights import load_weights
from llmcli.plan import resolve
from llmcli.runtime.cuda_graphs import CudaGraphs
from llmcli.runtime.decode_graphs import DecodeGraphs, Run
from llmcli.runtime.forward import build_batch
from llmcli.runtime.kv_memory import allocate_kv_cache
from llmcli.runtime.runner import Runner
from llmcli.sampling import SamplingParams
from llmcli.scheduler.step import SampleSpec, SequenceSlice, Step
from llmcli_kernels import select

GREEDY = SampleSpec(SamplingParams(temperature=0), seed=0, choice=0, position=0)
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # column of each nibble of a gemm word, from AutoAWQ's source


def base_config(**changes: Any) -> dict[str, Any]:
    """A Llama of three layers with five heads and no round sizes."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 80,
        "intermediate_size": 200,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "vocab_size": 211,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    } | changes


def transformers_model(config: dict[str, Any], seed: int = 0) -> Any:
    """A float32 transformers model of a config, with weights large enough that logits are decided."""
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    classes: dict[str, Any] = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "mistral": (MistralConfig, MistralForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    }
    config_class, model_class = classes[config["model_type"]]
    model = model_class(config_class(**config, attn_implementation="eager")).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if "norm" in name else 0.15 * noise)
    return model


def save_checkpoint(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / "model.safetensors"
    )
    return folder


def dense_checkpoint(folder: Path, config: dict[str, Any], model: Any) -> Path:
    tensors = dict(model.state_dict())
    if config["tie_word_embeddings"]:
        del tensors["lm_head.weight"]
    return save_checkpoint(folder, config, tensors)


@dataclass(frozen=True)
class Quantized:
    """Random integers, zeros and scales of one matrix in plain [N, K] order, and the weights they stand for."""

    q: torch.Tensor
    zeros: torch.Tensor
    scales: torch.Tensor
    group: int

    @property
    def weight(self) -> torch.Tensor:
        q, zeros, scales = (t.float() for t in (self.q, self.zeros, self.scales))
        return (q - zeros.repeat_interleave(self.group, 1)) * scales.repeat_interleave(self.group, 1)


def random_quantized(n: int, k: int, group: int, seed: int, symmetric: bool = False) -> Quantized:
    generator = torch.Generator().manual_seed(seed)
    shape = (n, k // group)
    zeros = torch.full(shape, 8) if symmetric else torch.randint(0, 16, shape, generator=generator)
    scales = (0.01 + 0.04 * torch.rand(shape, generator=generator)).half()
    return Quantized(torch.randint(0, 16, (n, k), generator=generator), zeros, scales, group)


def pack_gemm(matrix: Quantized) -> dict[str, torch.Tensor]:
    def words(rows: torch.Tensor) -> torch.Tensor:
        columns = rows.t().reshape(rows.shape[1], -1, 8).to(torch.int64)
        packed = sum(columns[:, :, column] << (4 * place) for place, column in enumerate(ORDER))
        return torch.as_tensor(packed).to(torch.uint32).view(torch.int32)

    return {"qweight": words(matrix.q), "qzeros": words(matrix.zeros), "scales": matrix.scales.t()}


def pack_gemv(matrix: Quantized) -> dict[str, torch.Tensor]:
    n, groups = matrix.scales.shape
    step = {32: 4, 64: 2}.get(matrix.group, 1)
    width = ((groups + 7) // 8 + step - 1) // step * step

    def words(rows: torch.Tensor) -> torch.Tensor:
        nibbles = rows.reshape(rows.shape[0], -1, 8).to(torch.int64)
        packed = sum(nibbles[:, :, place] << (4 * place) for place in range(8))
        return torch.as_tensor(packed).to(torch.uint32).view(torch.int32)

    def padded(rows: torch.Tensor) -> torch.Tensor:
        return torch.cat([rows, rows.new_zeros(n, width * 8 - groups)], dim=1)

    return {
        "qweight": words(matrix.q),
        "qzeros": words(padded(matrix.zeros)),
        "scales": padded(matrix.scales),
    }


def awq_checkpoints(
    folder: Path,
    config: dict[str, Any],
    version: str,
    group: int,
    skipped: tuple[str, ...] = (),
    symmetric: bool = False,
) -> tuple[Path, Path]:
    """The same model twice: quantized, and dense with the dequantised weights; skipped modules are dense in both."""
    pack = pack_gemm if version == "gemm" else pack_gemv
    dense = dict(transformers_model(config).state_dict())
    quantized: dict[str, torch.Tensor] = {}
    for seed, (name, weight) in enumerate(sorted(dense.items())):
        module = name.removesuffix(".weight")
        if not name.endswith("_proj.weight") or any(part in name for part in skipped):
            quantized[name] = weight
            continue
        n, k = weight.shape
        matrix = random_quantized(n, k, k if group == -1 else group, seed, symmetric)
        dense[name] = matrix.weight
        parts = pack(matrix)
        if symmetric:
            del parts["qzeros"]
        quantized |= {f"{module}.{part}": tensor for part, tensor in parts.items()}
    block = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": group,
        "zero_point": not symmetric,
        "version": version,
        "modules_to_not_convert": list(skipped) or None,
    }
    return (
        save_checkpoint(folder / "awq", config | {"quantization_config": block}, quantized),
        save_checkpoint(folder / "dense", config, dense),
    )


def make_plan(folder: Path, dtype: str = "float32", **options: Any) -> ResolvedConfig:
    config = EngineConfig(dtype=dtype, kv_cache_memory=32 << 20, **options)  # type: ignore[arg-type]
    return resolve(config, read_model_facts(folder), read_hardware_facts())


def load_runner(
    folder: Path,
    kernels: str = "reference",
    dtype: str = "float32",
    device: str = "cpu",
    lm_head: str = "full",
    graphs: bool = False,
    **options: Any,
) -> Runner:
    """A model on `device`; the Triton kernels run there too, on a CPU in Triton's interpreter.

    With `graphs` steps that decode run as graphs; on a CPU, as the functions that would be captured.
    """
    spec, config = read_model_spec(folder), make_plan(folder, dtype, **options)
    kernel_set = select("cuda" if kernels == "triton" else "cpu", kernels)
    torch_dtype = getattr(torch, config.dtype)
    weights = load_weights(folder, spec, kernel_set, torch_dtype, device=device, lm_head=lm_head)
    cos_sin = build_cos_sin(spec.rope, config.max_model_len).to(device)
    cache = allocate_kv_cache(replace(config, device=device), spec)
    decoder = Decoder(spec, weights, kernel_set, cos_sin)
    made = None
    if graphs:
        capture = CudaGraphs(cos_sin.device) if device == "cuda" else not_captured
        made = DecodeGraphs(decoder, cache, config.max_num_seqs, config.max_model_len, capture)
    return Runner(decoder, cache, config.block_size, made)


def not_captured(run: Run) -> Run:
    """In the place of a captured graph: the function itself, which must only depend on tensors that stay."""
    run()
    return run


@torch.inference_mode()
def logits(runner: Runner, ids: list[int], chunk: int = 7) -> torch.Tensor:
    """[len(ids), vocab_size]: the logits after every token, computed in chunks through the paged cache."""
    rows = []
    for start in range(0, len(ids), chunk):
        for end in range(start + 1, min(start + chunk, len(ids)) + 1):
            batch = build_batch(Step((_slice(runner, ids, start, end),)), runner.block_size)
            rows.append(runner.decoder.forward(batch, runner.cache)[0].clone())
    return torch.stack(rows)


def greedy(runner: Runner, ids: list[int], count: int) -> list[int]:
    """`count` greedy tokens after a prompt."""
    known, computed = list(ids), 0
    for _ in range(count):
        result = runner.run(Step((_slice(runner, known, computed, len(known)),)))
        computed = len(known)
        known.append(result.tokens[0].token_id)
    return known[len(ids) :]


def _slice(runner: Runner, ids: list[int], start: int, end: int) -> SequenceSlice:
    num_blocks = -(-end // runner.block_size)
    return SequenceSlice(0, start, tuple(ids[start:end]), tuple(range(num_blocks, 0, -1))[::-1], GREEDY)


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def write_tokenizer(folder: Path, vocab_size: int, chat_template: str | None = None) -> None:
    """A byte-level tokenizer with <s> and </s>, its vocabulary filled up with words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    specials = ["<unk>", "<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"Ġw{i}" for i in range(vocab_size - len(specials) - len(alphabet))]
    vocab = {token: i for i, token in enumerate([*specials, *alphabet, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    if chat_template is not None:
        settings["chat_template"] = chat_template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def tiny_chat_model(folder: Path, **changes: Any) -> Path:
    """A whole model folder, tokenizer and chat template included; its weights are random."""
    config = base_config(vocab_size=300, **changes)
    dense_checkpoint(folder, config, transformers_model(config))
    template = (
        "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    )
    write_tokenizer(folder, 300, template)
    return folder
