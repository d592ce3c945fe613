"""`ModelSpec`: what a model is, read from config.json by a strict parser of our own.

No Auto classes and no code from the model's repository: an architecture is either in the table below or refused with
the list of what is supported. Knows no tensor; the decoder, the loader and `show` read it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcli import strict_json
from llmcli.errors import CheckpointError, UnsupportedModelError, quote
from llmcli.model.rope_scaling import RopeSpec, read_rope_spec

MAX_CONFIG_BYTES = 4 << 20
AWQ_GROUP_SIZES = (32, 64, 128, -1)
LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclass(frozen=True, slots=True)
class Architecture:
    """How a family differs from plain Llama when config.json does not say.

    Attributes:
        qkv_bias: whether q, k and v have biases: True, False, or None for config.json's attention_bias.
        qk_norm: whether queries and keys of each head are RMS-normalised before the rotary embedding.
        sliding_window_default: the window when config.json has no such key.
        sliding_window_switch: whether a window counts only with use_sliding_window.
        head_dim_default: head size without the key; None is hidden_size / num_attention_heads.
    """

    qkv_bias: bool | None = None
    qk_norm: bool = False
    sliding_window_default: int | None = None
    sliding_window_switch: bool = False
    head_dim_default: int | None = None


ARCHITECTURES: Mapping[str, Architecture] = {
    "LlamaForCausalLM": Architecture(),
    "MistralForCausalLM": Architecture(qkv_bias=False, sliding_window_default=4096),
    "Qwen2ForCausalLM": Architecture(qkv_bias=True, sliding_window_switch=True),
    "Qwen3ForCausalLM": Architecture(qk_norm=True, sliding_window_switch=True, head_dim_default=128),
}
MODEL_TYPES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


@dataclass(frozen=True, slots=True)
class AwqSpec:
    """AWQ as AutoAWQ writes it: 4 bits; group_size -1 is one group per row; version gemm or gemv."""

    group_size: int
    zero_point: bool
    version: str
    modules_to_not_convert: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The shape of a decoder-only transformer.

    Attributes:
        sliding_windows: per layer, how many positions a token sees, itself included; None is all.
        max_position: longest sequence in tokens that the model is made for, rope scaling included.
        checkpoint_dtype: "float32", "bfloat16" or "float16", as config.json says.
        eos_ids: end-of-sequence ids of config.json; generation_config.json may add to them.
    """

    architecture: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_position: int
    rms_norm_eps: float
    rope: RopeSpec
    tie_word_embeddings: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    sliding_windows: tuple[int | None, ...]
    checkpoint_dtype: str
    bos_id: int | None
    eos_ids: tuple[int, ...]
    quantization: AwqSpec | None


def read_model_spec(folder: Path) -> ModelSpec:
    """Read config.json (and quant_config.json of older AWQ repositories).

    Raises:
        CheckpointError: the file is missing, not JSON, or a value is out of range; names file and key.
        UnsupportedModelError: an architecture, activation, rope type or quantization that is not implemented.
    """
    path = folder / "config.json"
    config = read_json_object(path)
    fields = _Fields(config, path)
    architecture = _architecture(config, path)
    family = ARCHITECTURES[architecture]

    hidden = fields.int("hidden_size", 1, 1 << 20)
    heads = fields.int("num_attention_heads", 1, 1 << 14)
    kv_heads = fields.int("num_key_value_heads", 1, 1 << 14, default=heads)
    head_dim = fields.int("head_dim", 2, 1 << 12, default=family.head_dim_default or max(2, hidden // heads))
    if config.get("head_dim") is None and family.head_dim_default is None and hidden % heads:
        raise CheckpointError(
            f"{path}: hidden_size {hidden} is not a multiple of num_attention_heads {heads}"
        )
    if heads % kv_heads:
        raise CheckpointError(
            f"{path}: num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
        )
    if head_dim % 2:
        raise CheckpointError(f"{path}: head_dim {head_dim} is odd; the rotary embedding needs pairs")
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise UnsupportedModelError(
            f"{path}: hidden_act {quote(activation)} is not supported", fix="supported: silu"
        )

    num_layers = fields.int("num_hidden_layers", 1, 1024)
    vocab = fields.int("vocab_size", 1, 1 << 22)
    positions = fields.int("max_position_embeddings", 1, 1 << 27, default=2048)
    rope = read_rope_spec(config, path, head_dim, positions)
    attention_bias = fields.bool("attention_bias", False)
    return ModelSpec(
        architecture=architecture,
        num_layers=num_layers,
        hidden_size=hidden,
        intermediate_size=fields.int("intermediate_size", 1, 1 << 22),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=vocab,
        max_position=rope.extended_positions(positions),
        rms_norm_eps=fields.float("rms_norm_eps", 0, 1, default=1e-6),
        rope=rope,
        tie_word_embeddings=fields.bool("tie_word_embeddings", False),
        qkv_bias=attention_bias if family.qkv_bias is None else family.qkv_bias,
        o_bias=attention_bias if family.qkv_bias is None else False,
        mlp_bias=fields.bool("mlp_bias", False) if architecture == "LlamaForCausalLM" else False,
        qk_norm=family.qk_norm,
        sliding_windows=_sliding_windows(fields, family, num_layers),
        checkpoint_dtype=_dtype(config),
        bos_id=next(iter(_token_ids(config.get("bos_token_id"), "bos_token_id", vocab, path)), None),
        eos_ids=_token_ids(config.get("eos_token_id"), "eos_token_id", vocab, path),
        quantization=_quantization(config, folder),
    )


def read_json_object(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Read a JSON object from a model's folder.

    Raises:
        CheckpointError: missing, unreadable, too large, not JSON or not an object.
    """
    try:
        if not path.is_file():
            raise OSError(2, "not a regular file" if path.exists() else "no such file")
        size = path.stat().st_size
        if size > limit:
            raise CheckpointError(f"{path} has {size:,} bytes, at most {limit:,} are read")
        value = strict_json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} can not be read: {error.strerror}") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found {type(value).__name__}")
    return value


def _architecture(config: Mapping[str, Any], path: Path) -> str:
    names = config.get("architectures")
    found = names[0] if isinstance(names, list) and len(names) == 1 else None
    if found is None and not names:
        found = MODEL_TYPES.get(str(config.get("model_type")))
    if not isinstance(found, str) or found not in ARCHITECTURES:
        shown = names if names else config.get("model_type")
        raise UnsupportedModelError(
            f"{path}: architecture {quote(json.dumps(shown))} is not supported",
            fix=f"supported: {', '.join(ARCHITECTURES)}",
        )
    return found


def _sliding_windows(fields: "_Fields", family: Architecture, num_layers: int) -> tuple[int | None, ...]:
    config = fields.config
    if "sliding_window" in config or family.sliding_window_switch:
        window = config.get("sliding_window")
        window = None if window is None else fields.int("sliding_window", 1, 1 << 27)
    else:
        window = family.sliding_window_default
    if not family.sliding_window_switch:
        # Llama has no window, whatever a stray key says
        return (window if family.sliding_window_default is not None else None,) * num_layers
    if window is None or not fields.bool("use_sliding_window", False):
        return (None,) * num_layers
    kinds = config.get("layer_types")
    if kinds is not None:
        if (
            not isinstance(kinds, list)
            or len(kinds) != num_layers
            or not all(k in LAYER_TYPES for k in kinds)
        ):
            names = " or ".join(LAYER_TYPES)
            raise CheckpointError(f"{fields.path}: layer_types must be a list of {num_layers} times {names}")
        return tuple(window if kind == "sliding_attention" else None for kind in kinds)
    first = fields.int("max_window_layers", 0, 1 << 14, default=28)
    return tuple(window if layer >= first else None for layer in range(num_layers))


def _dtype(config: Mapping[str, Any]) -> str:
    name = config.get("dtype", config.get("torch_dtype"))
    return name if name in ("float32", "bfloat16", "float16") else "float32"


def _token_ids(value: Any, name: str, vocab: int, path: Path) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token_id in ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < vocab:
            raise CheckpointError(f"{path}: {name} {quote(token_id)} is not in 0..{vocab - 1}")
    return tuple(ids)


def _quantization(config: Mapping[str, Any], folder: Path) -> AwqSpec | None:
    block = config.get("quantization_config")
    path = folder / "config.json"
    if block is None and (folder / "quant_config.json").is_file():
        path = folder / "quant_config.json"
        block = {"quant_method": "awq", **read_json_object(path)}
    if block is None:
        return None
    if not isinstance(block, dict):
        raise CheckpointError(f"{path}: quantization_config must be an object")
    method = block.get("quant_method")
    if method != "awq":
        raise UnsupportedModelError(
            f"{path}: quantization {quote(method)} is not supported",
            fix="supported: awq (4 bits), or no quantization",
        )
    return _awq(block, path)


def _awq(block: Mapping[str, Any], path: Path) -> AwqSpec:
    bits = block.get("bits", block.get("w_bit", 4))
    group = block.get("group_size", block.get("q_group_size", 128))
    version = str(block.get("version", "gemm")).lower()
    zero_point = block.get("zero_point", True)
    if bits != 4:
        raise UnsupportedModelError(
            f"{path}: AWQ with {quote(bits)} bits is not supported", fix="supported: 4 bits"
        )
    if not isinstance(group, int) or group not in AWQ_GROUP_SIZES:
        raise UnsupportedModelError(
            f"{path}: AWQ group_size {quote(group)} is not supported",
            fix=f"supported: {', '.join(map(str, AWQ_GROUP_SIZES))}",
        )
    if version not in ("gemm", "gemv"):
        raise UnsupportedModelError(
            f"{path}: AWQ version {quote(version)} is not supported", fix="supported: gemm, gemv"
        )
    if not isinstance(zero_point, bool):
        raise CheckpointError(f"{path}: zero_point must be true or false, got {quote(zero_point)}")
    skipped = block.get("modules_to_not_convert") or []
    if not isinstance(skipped, list) or not all(isinstance(name, str) for name in skipped):
        raise CheckpointError(f"{path}: modules_to_not_convert must be a list of names")
    return AwqSpec(
        group_size=group, zero_point=zero_point, version=version, modules_to_not_convert=tuple(skipped)
    )


class _Fields:
    """Typed reads from config.json; every error names the file, the key, the value and the range."""

    def __init__(self, config: Mapping[str, Any], path: Path) -> None:
        self.config = config
        self.path = path

    def int(self, name: str, low: int, high: int, *, default: int | None = None) -> int:
        value = self.config.get(name)
        if value is None:
            value = default
        if value is None:
            raise CheckpointError(f"{self.path}: {name} is missing")
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise CheckpointError(
                f"{self.path}: {name} must be an integer in {low}..{high}, got {quote(value)}"
            )
        return value

    def float(self, name: str, low: float, high: float, *, default: float) -> float:
        value = self.config.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise CheckpointError(
                f"{self.path}: {name} must be a number in {low:g}..{high:g}, got {quote(value)}"
            )
        return float(value)

    def bool(self, name: str, default: bool) -> bool:
        value = self.config.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.path}: {name} must be true or false, got {quote(value)}")
        return value
