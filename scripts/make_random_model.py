#!/usr/bin/env python3
"""Write a checkpoint with random weights in a real model's shape, dense or AWQ, for benchmarks.

    python scripts/make_random_model.py tinyllama-1.1b --awq --out models/tinyllama-awq

Speed depends on shapes and formats, not on values, so these stand in for models that can not be downloaded. The same
seed writes the same bytes. AWQ checkpoints are in AutoAWQ's gemm form, group size 128, float16.
"""

import argparse
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

GROUP = 128
SHARD_BYTES = 1 << 30
WEIGHT_STD = 0.02
UNIFORM_NIBBLE_STD = 4.61
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def shape(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocab: int, positions: int
) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "vocab_size": vocab,
        "max_position_embeddings": positions,
    }


SHAPES: dict[str, dict[str, object]] = {
    "tinyllama-1.1b": LLAMA | shape(2048, 5632, 22, 32, 4, 32000, 2048),
    "qwen2.5-0.5b": LLAMA
    | shape(896, 4864, 24, 14, 2, 151936, 32768)
    | {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
    },
    "llama-3.2-1b": LLAMA
    | shape(2048, 8192, 16, 32, 8, 128256, 131072)
    | {
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "llama-2-7b": LLAMA | shape(4096, 11008, 32, 32, 32, 32000, 4096),
}


def tensors(config: dict[str, object], awq: bool, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of the checkpoint, one at a time; each depends on its name and the seed only."""
    sizes = {name: int(value) for name, value in config.items() if isinstance(value, int)}  # type: ignore[call-overload]
    hidden, inner, head_dim = sizes["hidden_size"], sizes["intermediate_size"], sizes["head_dim"]
    q, kv = sizes["num_attention_heads"] * head_dim, sizes["num_key_value_heads"] * head_dim
    dtype = torch.float16 if awq else torch.bfloat16

    def random(name: str) -> torch.Generator:
        return torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))

    def dense(name: str, *shape: int) -> tuple[str, torch.Tensor]:
        return name, (torch.randn(*shape, generator=random(name)) * WEIGHT_STD).to(dtype)

    def linear(name: str, n: int, k: int) -> Iterator[tuple[str, torch.Tensor]]:
        if not awq:
            yield dense(f"{name}.weight", n, k)
            return
        words = torch.randint(-(2**31), 2**31, (k, n // 8), generator=random(name), dtype=torch.int64)
        yield f"{name}.qweight", words.to(torch.int32)
        yield f"{name}.qzeros", torch.full((k // GROUP, n // 8), 0x77777777, dtype=torch.int32)
        spread = 0.75 + 0.5 * torch.rand(k // GROUP, n, generator=random(name))
        yield f"{name}.scales", (spread * WEIGHT_STD / UNIFORM_NIBBLE_STD).half()

    yield dense("model.embed_tokens.weight", sizes["vocab_size"], hidden)
    for layer in range(sizes["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield f"{prefix}input_layernorm.weight", torch.ones(hidden, dtype=dtype)
        for name, n in (("q_proj", q), ("k_proj", kv), ("v_proj", kv)):
            yield from linear(f"{prefix}self_attn.{name}", n, hidden)
            if config["model_type"] == "qwen2":
                yield dense(f"{prefix}self_attn.{name}.bias", n)
        yield from linear(f"{prefix}self_attn.o_proj", hidden, q)
        yield f"{prefix}post_attention_layernorm.weight", torch.ones(hidden, dtype=dtype)
        yield from linear(f"{prefix}mlp.gate_proj", inner, hidden)
        yield from linear(f"{prefix}mlp.up_proj", inner, hidden)
        yield from linear(f"{prefix}mlp.down_proj", hidden, inner)
    yield "model.norm.weight", torch.ones(hidden, dtype=dtype)
    if not config["tie_word_embeddings"]:
        yield dense("lm_head.weight", sizes["vocab_size"], hidden)


def write_shards(out: Path, stream: Iterator[tuple[str, torch.Tensor]]) -> int:
    """Write safetensors shards and their index; returns the bytes of all tensors."""
    shards: list[dict[str, int]] = []
    part: dict[str, torch.Tensor] = {}

    def flush() -> None:
        shards.append({name: tensor.nbytes for name, tensor in part.items()})
        save_file(part, out / f"part-{len(shards)}.safetensors", metadata={"format": "pt"})
        print(f"wrote shard {len(shards)}: {sum(shards[-1].values()):,} bytes", file=sys.stderr)
        part.clear()

    for name, tensor in stream:
        part[name] = tensor
        if sum(t.nbytes for t in part.values()) >= SHARD_BYTES:
            flush()
    if part:
        flush()
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    for number, name in enumerate(names, 1):
        (out / f"part-{number}.safetensors").rename(out / name)
    total = sum(sum(shard.values()) for shard in shards)
    if len(shards) > 1:
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    return total


def write_tokenizer(out: Path, vocab_size: int) -> None:
    """A byte-level tokenizer whose vocabulary is filled up with made-up words, so that every id decodes."""
    specials = ["<unk>", "<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"Ġw{i}" for i in range(vocab_size - len(specials) - len(alphabet))]
    vocab = {token: i for i, token in enumerate([*specials, *alphabet, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens(specials)
    tokenizer.save(str(out / "tokenizer.json"))
    template = (
        "{% for m in messages %}{{ '<s>' + m['role'] + '\\n' + m['content'] + '</s>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<s>assistant\\n' }}{% endif %}"
    )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "chat_template": template,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a random checkpoint in a real model's shape.")
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--awq", action="store_true", help="int4 AWQ (gemm, group 128) instead of bfloat16")
    parser.add_argument("--layers", type=int, help="fewer layers than the real model, for a quick trial")
    parser.add_argument("--positions", type=int, help="longest context, instead of the real model's")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    changes = {"num_hidden_layers": args.layers, "max_position_embeddings": args.positions}
    config = dict(SHAPES[args.shape]) | {name: value for name, value in changes.items() if value}
    config["dtype"] = "float16" if args.awq else "bfloat16"
    if args.awq:
        config["quantization_config"] = {
            "quant_method": "awq",
            "bits": 4,
            "group_size": GROUP,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": None,
        }
    args.out.mkdir(parents=True, exist_ok=True)
    total = write_shards(args.out, tensors(config, args.awq, args.seed))
    (args.out / "config.json").write_text(json.dumps(config, indent=1))
    generation = {"bos_token_id": 1, "eos_token_id": 2, "do_sample": False}
    (args.out / "generation_config.json").write_text(json.dumps(generation))
    write_tokenizer(args.out, int(config["vocab_size"]))  # type: ignore[call-overload]
    print(f"{args.out}: {total / 1e9:.3f} GB")


if __name__ == "__main__":
    main()
