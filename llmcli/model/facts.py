"""`ModelFacts` of a folder, from config.json and the safetensors headers alone: no torch, no weights read."""

import math
from pathlib import Path

from llmcli.config import ModelFacts
from llmcli.model.checkpoint import read_checkpoint
from llmcli.model.spec import ModelSpec, read_model_spec

CHECKPOINT_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
AWQ_SUFFIXES = (".qweight", ".qzeros", ".scales")


def read_model_facts(folder: Path, spec: ModelSpec | None = None) -> ModelFacts:
    """Sizes that `config.resolve` needs.

    Raises:
        CheckpointError, UnsupportedModelError: see `read_model_spec` and `read_checkpoint`.
    """
    spec = spec or read_model_spec(folder)
    dense = quantized = 0
    dtypes: set[str] = set()
    for name, info in read_checkpoint(folder).items():
        if name.endswith(AWQ_SUFFIXES):
            quantized += info.num_bytes
        elif not (spec.tie_word_embeddings and name == "lm_head.weight"):
            dense += math.prod(info.shape)
            dtypes.add(info.dtype)
    stored = next((CHECKPOINT_DTYPES[d] for d in ("F32", "BF16", "F16") if d in dtypes), "float32")
    return ModelFacts(
        num_layers=spec.num_layers,
        num_kv_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        max_position=spec.max_position,
        dense_parameters=dense,
        quantized_bytes=quantized,
        checkpoint_dtype=stored,
        hidden_size=spec.hidden_size,
        vocab_size=spec.vocab_size,
    )
