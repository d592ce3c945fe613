"""What a decoder layer consists of when it is quantized: its tensors, its matrices, and which of them share an input.

Names are those of the checkpoint without `model.layers.N.`. Knows no values and no torch; the rest of `quantize/` reads
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llmcli.errors import UnsupportedModelError, UsageError
from llmcli.model.spec import ModelSpec

Method = Literal["awq", "rtn", "autoawq"]
COLUMNS_PER_WORD = 8
GROUP_SIZES = (32, 64, 128)
OUTPUT_HEAD = "lm_head"
SHARD_BYTES = 5 * 10**9  # of data in one file, as usual on the hub


@dataclass(frozen=True, slots=True)
class Grid:
    """How a row is divided, and whether each group has a zero point of its own or zero in the middle."""

    group_size: int
    zero_point: bool = True


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is quantized.

    Attributes:
        skip: matrices with one of these in their name stay dense, as does the output head always.
        dtype: of what stays dense: "float16", "bfloat16" or "float32".
    """

    method: Method
    grid: Grid
    skip: tuple[str, ...]
    dtype: str

    def quantizes(self, matrix: str) -> bool:
        """Whether a matrix, by its full name (model.layers.0.self_attn.q_proj), becomes 4-bit."""
        return not any(part in matrix for part in self.skip)


@dataclass(frozen=True, slots=True)
class SharedInput:
    """Matrices with the same input, and where it comes from.

    Attributes:
        matrices: the first gives the input its name.
        producer: what makes the input, element by element: a norm or a matrix. Dividing its rows by a scale each
            and multiplying the columns of the matrices by the same scales changes nothing (AWQ, section 3.2).
        copies: how often each output of the producer appears in the input, in runs of `run` channels: heads that share
            their values.
    """

    matrices: tuple[str, ...]
    producer: str
    copies: int = 1
    run: int = 1


def matrices(spec: ModelSpec) -> Mapping[str, tuple[int, int]]:
    """(outputs, inputs) of each matrix of a layer."""
    hidden, inner = spec.hidden_size, spec.intermediate_size
    q, kv = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    return {
        "self_attn.q_proj": (q, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def shared_inputs(spec: ModelSpec) -> tuple[SharedInput, ...]:
    """The inputs of a layer's matrices, in the order in which they are computed."""
    return (
        SharedInput(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "input_layernorm"),
        SharedInput(
            ("self_attn.o_proj",), "self_attn.v_proj", spec.num_heads // spec.num_kv_heads, spec.head_dim
        ),
        SharedInput(("mlp.gate_proj", "mlp.up_proj"), "post_attention_layernorm"),
        SharedInput(("mlp.down_proj",), "mlp.up_proj"),
    )


def layer_tensors(spec: ModelSpec) -> Mapping[str, tuple[int, ...]]:
    """Shapes of all tensors of a dense layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    biases = {
        "q_proj": spec.qkv_bias,
        "k_proj": spec.qkv_bias,
        "v_proj": spec.qkv_bias,
        "o_proj": spec.o_bias,
    }
    for name, (n, k) in matrices(spec).items():
        shapes[f"{name}.weight"] = (n, k)
        if biases.get(name.rpartition(".")[2], spec.mlp_bias):
            shapes[f"{name}.bias"] = (n,)
    shapes["input_layernorm.weight"] = (spec.hidden_size,)
    shapes["post_attention_layernorm.weight"] = (spec.hidden_size,)
    if spec.qk_norm:
        shapes["self_attn.q_norm.weight"] = (spec.head_dim,)
        shapes["self_attn.k_norm.weight"] = (spec.head_dim,)
    return shapes


def layer_prefix(index: int) -> str:
    """What the names of a layer's tensors begin with in a checkpoint."""
    return f"model.layers.{index}."


def check_sizes(spec: ModelSpec, recipe: Recipe) -> None:
    """Refuse matrices that the format has no form for.

    Raises:
        UnsupportedModelError: inputs that groups do not divide, outputs that words do not; says what to type.
        UsageError: all matrices are skipped.
    """
    size, sizes = recipe.grid.group_size, matrices(spec)
    taken = {
        name
        for name in sizes
        for index in range(spec.num_layers)
        if recipe.quantizes(layer_prefix(index) + name)
    }
    if not taken:
        raise UsageError(
            f"--skip {','.join(recipe.skip)} leaves nothing to quantize", fix="skip less than all matrices"
        )
    odd = [
        name
        for name in sizes
        if name in taken and (sizes[name][1] % size or sizes[name][0] % COLUMNS_PER_WORD)
    ]
    if not odd:
        return
    n, k = sizes[odd[0]]
    whole = [g for g in GROUP_SIZES if all(sizes[m][1] % g == 0 and sizes[m][0] % 8 == 0 for m in taken)]
    skip = ",".join(dict.fromkeys([OUTPUT_HEAD, *recipe.skip, *(name.rpartition(".")[2] for name in odd)]))
    raise UnsupportedModelError(
        f"{odd[0]} has {n} outputs and {k} inputs, which 4 bits in groups of {size} can not hold",
        why=f"inputs must be a multiple of the group size, outputs of {COLUMNS_PER_WORD}",
        fix=f"use --group-size {max(whole)}" if whole else f"leave such matrices dense: --skip {skip}",
    )
