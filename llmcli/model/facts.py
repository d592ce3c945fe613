"""`ModelFacts` of a folder, from config.json and the safetensors headers alone: no torch, no weights read."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from llmcli.config import ModelFacts
from llmcli.model.checkpoint import TensorInfo, read_checkpoint
from llmcli.model.spec import ModelSpec, read_model_spec

CHECKPOINT_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
AWQ_SUFFIXES = (".qweight", ".qzeros", ".scales")
INTEGER_K = 128  # k that the CPU's integer kernels take at a time
INTEGER_GROUPS = (32, 64)  # sizes of groups that they know, besides multiples of INTEGER_K


def read_model_facts(
    folder: Path, spec: ModelSpec | None = None, tensors: Mapping[str, TensorInfo] | None = None
) -> ModelFacts:
    """Sizes that `plan.resolve` needs.

    Args:
        spec, tensors: of the folder, where the caller has read them already.

    Raises:
        CheckpointError, UnsupportedModelError: see `read_model_spec` and `read_checkpoint`.
    """
    spec = spec or read_model_spec(folder)
    tensors = read_checkpoint(folder) if tensors is None else tensors
    quantized = 0
    dense: Counter[str] = Counter()
    for name, info in tensors.items():
        if name.endswith(AWQ_SUFFIXES):
            quantized += info.num_bytes
        elif not (spec.tie_word_embeddings and name == "lm_head.weight"):
            dense[info.dtype] += math.prod(info.shape)
    most = next((dtype for dtype, _ in dense.most_common() if dtype in CHECKPOINT_DTYPES), "F32")
    return ModelFacts(
        num_layers=spec.num_layers,
        num_kv_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        max_position=spec.max_position,
        dense_parameters=dense.total(),
        quantized_bytes=quantized,
        checkpoint_dtype=CHECKPOINT_DTYPES[most],
        hidden_size=spec.hidden_size,
        vocab_size=spec.vocab_size,
        tied=spec.tie_word_embeddings,
        largest_int4=_largest_layer(spec) if spec.quantization else 0,
        dense_head=spec.tie_word_embeddings
        or "lm_head.weight" in tensors
        or "lm_head.qweight" not in tensors,
        integer_layers=_all_fit_integers(spec, tensors),
    )


def fits_integers(k: int, group_size: int) -> bool:
    """Whether the CPU's integer kernels take a 4-bit layer of k inputs, group_size of which share a scale."""
    known = group_size in INTEGER_GROUPS or group_size % INTEGER_K == 0
    return known and k > 0 and k % INTEGER_K == 0


def _all_fit_integers(spec: ModelSpec, tensors: Mapping[str, TensorInfo]) -> bool:
    """Of all quantized layers; config.json tells their sizes."""
    if spec.quantization is None:
        return True
    of_module = {"o_proj": spec.num_heads * spec.head_dim, "down_proj": spec.intermediate_size}
    modules = {name.split(".")[-2] for name in tensors if name.endswith(".qweight")}
    inputs = {of_module.get(module, spec.hidden_size) for module in modules}
    group = spec.quantization.group_size
    return all(fits_integers(k, k if group == -1 else group) for k in inputs)


def _largest_layer(spec: ModelSpec) -> int:
    """Weights of the largest of a layer's matrices, as they are merged to run: q, k and v; o; gate and up; down."""
    q, kv = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    return spec.hidden_size * max(q + 2 * kv, 2 * spec.intermediate_size)
