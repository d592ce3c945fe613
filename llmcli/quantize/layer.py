"""One decoder layer from dense to 4 bits, and how much that changes it.

Puts the rounding, the scales and the packing together. Knows no file and no text: tensors and moments come in, named
tensors as they are to be stored go out. Called by `jobs/quantize/job.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli.errors import CheckpointError
from llmcli.model.formats.awq import pack_gemm
from llmcli.model.spec import ModelSpec
from llmcli.quantize.awq import Moments, fold, product_error, product_size, search_scales
from llmcli.quantize.grid import Quantized, fit_to_grid, round_to_grid
from llmcli.quantize.reader import LayerTensors
from llmcli.quantize.shape import Grid, Recipe, layer_prefix, layer_tensors, matrices, shared_inputs

# Queries and keys meet in a product of their own, which the error of either alone says little about: their ranges stay.
NEVER_SHRUNK = ("self_attn.q_proj", "self_attn.k_proj")


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """A layer as it is stored, by full names, and the error of its quantized matrices beside their size.

    With moments that is the root of the mean square of their outputs over the calibration text, else of their weights.
    """

    tensors: Mapping[str, Tensor]
    error: float


def quantize_layer(
    layer: LayerTensors,
    spec: ModelSpec,
    recipe: Recipe,
    index: int,
    moments: Mapping[str, Moments] | None = None,
) -> QuantizedLayer:
    """Quantize a layer.

    Args:
        layer: float32; the mapping is left as it is.
        moments: of the input of each `SharedInput`, by the name of its first matrix: AWQ's scales are searched and
            ranges are fitted to the products. None rounds to nearest, with ranges fitted to the weights.

    Raises:
        CheckpointError: what comes out has NaN or infinity; names the matrix.
    """
    layer, inputs = dict(layer), dict(moments or {})
    chosen = [name for name in matrices(spec) if recipe.quantizes(layer_prefix(index) + name)]
    if moments is not None:
        _scale(layer, spec, recipe, inputs, chosen)
    input_of = {name: shared.matrices[0] for shared in shared_inputs(spec) for name in shared.matrices}
    parts: dict[str, Tensor] = {}
    error = size = 0.0
    for name in chosen:
        weight, seen = layer[f"{name}.weight"], inputs.get(input_of[name])
        quantized = _quantize(name, weight, recipe.grid, seen)
        _check_finite(f"{layer_prefix(index)}{name}", quantized.scales)
        rounded = quantized.dequantize()
        if seen is None:
            error += float((weight - rounded).square().sum())
            size += float(weight.square().sum())
        else:
            error += product_error([weight], [rounded], seen)
            size += product_size(weight, seen)
        packed = pack_gemm(quantized.q.cpu(), quantized.zeros.cpu(), quantized.scales.cpu())
        parts |= {f"{name}.{part}": tensor for part, tensor in packed.items()}
    dtype = getattr(torch, recipe.dtype)
    for name in layer_tensors(spec):
        if name.removesuffix(".weight") not in chosen:
            parts[name] = narrowed(layer_prefix(index) + name, layer[name], dtype)
    named = {layer_prefix(index) + name: tensor for name, tensor in parts.items()}
    return QuantizedLayer(named, math.sqrt(max(error, 0.0) / size) if size else 0.0)


def narrowed(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in the dtype that it is stored in.

    Raises:
        CheckpointError: its values are beyond the dtype's range.
    """
    stored = tensor.to("cpu", dtype)
    if not torch.isfinite(stored).all():
        raise CheckpointError(
            f"{name} does not fit into {dtype}: its largest value is {float(tensor.abs().max()):.4g}",
            fix="use --dtype bfloat16, whose range is that of float32",
        )
    return stored.contiguous()


def _scale(
    layer: LayerTensors, spec: ModelSpec, recipe: Recipe, inputs: dict[str, Moments], chosen: list[str]
) -> None:
    """Search and fold the scales of each input; `layer` and `inputs` are changed."""
    dtype = getattr(torch, recipe.dtype)
    for shared in shared_inputs(spec):
        weights = [layer[f"{name}.weight"] for name in shared.matrices if name in chosen]
        if weights:
            seen = inputs[shared.matrices[0]]
            scales = search_scales(weights, seen, recipe.grid, shared)
            inputs[shared.matrices[0]] = seen.scaled(fold(layer, shared, scales, dtype))


def _quantize(name: str, weight: Tensor, grid: Grid, seen: Moments | None) -> Quantized:
    if seen is None:
        return fit_to_grid(weight, grid)
    if name in NEVER_SHRUNK:
        return round_to_grid(weight, grid)
    return fit_to_grid(weight, grid, seen.blocks(grid.group_size))


def _check_finite(matrix: str, scales: Tensor) -> None:
    if not torch.isfinite(scales).all():
        raise CheckpointError(
            f"{matrix}: its scales are beyond float16, the only form that AWQ has for them",
            why="the matrix has weights of about a million, or was damaged",
            fix=f"leave it dense: --skip lm_head,{matrix.rpartition('.')[2]}",
        )
