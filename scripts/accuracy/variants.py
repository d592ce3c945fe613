"""Other forms of a model: its matrices in AWQ's 4 bits, and with activations that have outliers.

Owns the rewriting of checkpoints. A model with outliers computes the same function in exact arithmetic: some channels
of the norms that stand before linear layers are FACTOR times larger, the columns that read them FACTOR times smaller.
In 4 bits those columns round to zero, as the others of their group set its scale: the outliers then only disturb the
activations around them.
Called by `scripts/measure_accuracy.py`.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from llmcli.model.checkpoint import read_checkpoint
from llmcli.model.formats import awq
from llmcli.model.spec import read_model_spec
from scripts.gpu_bench.linear_peers import awq_words

FACTOR = 100.0
NUM_OUTLIERS = 4
GROUP_SIZES = (128, 64, 32)
LARGEST_NIBBLE = 15
READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Variant:
    """A model to measure: a folder as it is, or changed.

    Attributes:
        awq: round matrices to 4 bits, in groups of the source's size if it has one.
    """

    name: str
    source: Path
    awq: bool = False
    outliers: bool = False

    def prepare(self, scratch: Path) -> Path:
        """The folder of this form, written below `scratch` where it is not the source itself."""
        if not (self.awq or self.outliers):
            return self.source
        out = scratch / self.name.replace(" ", "-")
        write_variant(self.source, out, quantize=self.awq, outliers=self.outliers)
        return out


def write_variant(source: Path, out: Path, *, quantize: bool, outliers: bool) -> None:
    """Write the model in another form; the files of its tokenizer are copied."""
    config = json.loads((source / "config.json").read_text("utf-8"))
    old = config.pop("quantization_config", None)
    tensors = read_dense(source)
    if outliers:
        add_outliers(tensors)
    if quantize:
        group = old["group_size"] if old else group_size_of(config["hidden_size"])
        tensors, dense = quantize_all(tensors, group)
        config["quantization_config"] = {
            "quant_method": "awq",
            "bits": 4,
            "group_size": group,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": dense or None,
        }
    out.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix != ".safetensors" and path.name not in ("config.json", "model.safetensors.index.json"):
            shutil.copyfile(path, out / path.name)
    dtype = "float16" if quantize else "float32"
    (out / "config.json").write_text(json.dumps(config | {"torch_dtype": dtype, "dtype": dtype}), "utf-8")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out / "model.safetensors")


def read_dense(folder: Path) -> Tensors:
    """All tensors in float32, AWQ matrices dequantized."""
    stored: Tensors = {}
    for path in {info.file for info in read_checkpoint(folder).values()}:
        with safe_open(str(path), framework="pt") as file:
            stored |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    quantization = read_model_spec(folder).quantization
    dense = {}
    for name, tensor in stored.items():
        module, _, part = name.rpartition(".")
        if quantization is not None and part == "qweight":
            parts = tensor, stored.get(f"{module}.qzeros"), stored[f"{module}.scales"]
            restore = awq.from_gemm if quantization.version == "gemm" else awq.from_gemv
            dense[f"{module}.weight"] = (
                restore(*parts, quantization.group_size).plain().dequantize(torch.float32)
            )
        elif part not in ("qzeros", "scales"):
            dense[name] = tensor.to(torch.float32)
    return dense


def add_outliers(tensors: Tensors) -> None:
    """Make NUM_OUTLIERS channels of every norm before linear layers FACTOR times the others, in place."""
    for name in [name for name in tensors if name.startswith("model.layers.")]:
        layer, _, norm = name.removesuffix(".weight").rpartition(".")
        if norm not in READERS:
            continue
        size = tensors[name].shape[0]
        # Spread out, so that most groups have one: the hardest case for numbers that share a scale.
        channels = torch.arange(NUM_OUTLIERS) * size // NUM_OUTLIERS + size // (2 * NUM_OUTLIERS)
        tensors[name][channels] *= FACTOR
        for reader in READERS[norm]:
            tensors[f"{layer}.{reader}.weight"][:, channels] /= FACTOR


def group_size_of(hidden_size: int) -> int:
    """The largest usual group size that divides it."""
    return next(size for size in GROUP_SIZES if hidden_size % size == 0)


def quantize_all(tensors: Tensors, group_size: int) -> tuple[Tensors, list[str]]:
    """The matrices of the layers in AutoAWQ's gemm form, everything else in float16, and the names of those
    matrices whose sizes do not allow it."""
    out, left = {}, []
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        if not module.endswith("_proj") or not name.endswith(".weight"):
            out[name] = tensor.half()
        elif tensor.shape[1] % group_size or tensor.shape[0] % 8:
            out[name] = tensor.half()
            left.append(module)
        else:
            out |= {
                f"{module}.{part}": packed for part, packed in quantize_matrix(tensor, group_size).items()
            }
    return out, left


def quantize_matrix(weight: Tensor, group_size: int) -> dict[str, Any]:
    """[N, K] rounded to nearest, each group over its own range with zero in it."""
    n, k = weight.shape
    groups = weight.reshape(n, k // group_size, group_size)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scales = ((high - low) / LARGEST_NIBBLE).clamp(min=1e-5).half()
    zeros = (-low / scales.float()).round().clamp(0, LARGEST_NIBBLE)
    q = (groups / scales.float().unsqueeze(-1)).round() + zeros.unsqueeze(-1)
    return {
        "qweight": awq_words(q.clamp(0, LARGEST_NIBBLE).to(torch.uint8).view(n, k)),
        "qzeros": awq_words(zeros.to(torch.uint8)),
        "scales": scales.t(),
    }
