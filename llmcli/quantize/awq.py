"""AWQ (Lin et al., "Activation-aware Weight Quantization", arXiv 2306.00978): scales that spare the channels which
carry large activations.

Multiplying a column of a matrix by s > 1 and dividing its input by s leaves the product as it is, and makes the
column's rounding error weigh less. The scales come from a search along one exponent; the division is folded into
whatever makes the input. Here an error is that of the matrices' outputs over the calibration text, computed exactly
from the second moments H of their inputs: ‖(W - Ŵ)X‖² = tr((W - Ŵ) H (W - Ŵ)ᵀ), so that no step of the search runs the
text again. Knows no file; `quantize/layer.py` calls it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli.quantize.grid import Quantized, round_to_grid, row_chunks
from llmcli.quantize.reader import LayerTensors
from llmcli.quantize.shape import Grid, SharedInput

STEPS = 20
SMALLEST = 1e-4
SEARCHED_ROWS = 2048  # of a matrix, evenly spread: enough to tell scales apart, at a fraction of the time


@dataclass(frozen=True, slots=True)
class Moments:
    """Of the inputs of some matrices: second [K, K], the mean of x xᵀ, and size [K], the mean of |x|; float32."""

    second: Tensor
    size: Tensor

    def scaled(self, scales: Tensor) -> "Moments":
        """Those of the inputs divided by `scales` [K]."""
        return Moments(self.second / scales[:, None] / scales, self.size / scales)

    def blocks(self, group_size: int) -> Tensor:
        """[K/g, g, g]: the second moments within each group of inputs."""
        groups = len(self.size) // group_size
        square = self.second.view(groups, group_size, groups, group_size)
        return torch.diagonal(square, dim1=0, dim2=2).permute(2, 0, 1).contiguous()


class MomentCounter:
    """Adds up the moments of one input over the calibration text."""

    def __init__(self) -> None:
        self._second: Tensor | None = None
        self._size: Tensor | None = None
        self._count = 0

    def add(self, inputs: Tensor) -> None:
        """inputs [tokens, K] float32."""
        if self._second is None or self._size is None:
            k = inputs.shape[1]
            self._second, self._size = inputs.new_zeros(k, k), inputs.new_zeros(k)
        self._second.addmm_(inputs.t(), inputs)
        self._size += inputs.abs().sum(0)
        self._count += len(inputs)

    def moments(self) -> Moments:
        assert self._second is not None
        assert self._size is not None
        return Moments(self._second / self._count, self._size / self._count)


def search_scales(weights: Sequence[Tensor], moments: Moments, grid: Grid, shared: SharedInput) -> Tensor:
    """The scales [outputs of the producer] with the least error of all matrices together; ones if none is better.

    Args:
        weights: [N_i, K] float32 each, all with the inputs that `moments` is of.
    """
    weights = [weight[:: -(-len(weight) // SEARCHED_ROWS)] for weight in weights]
    channels = input_channels(shared, len(moments.size)).to(moments.size.device)
    count = int(channels.max()) + 1
    size = _mean_by_channel(moments.size, channels, count)
    spread = _mean_by_channel(_relative_size(weights, grid), channels, count)
    best = torch.ones(count, device=moments.size.device)
    least = product_error(weights, [_rounded(w, best[channels], grid) for w in weights], moments)
    for step in range(STEPS):
        exponent = step / STEPS
        scales = (size**exponent / (spread ** (1 - exponent) + SMALLEST)).clamp_(min=SMALLEST)
        scales /= (scales.max() * scales.min()).sqrt()
        if not torch.isfinite(scales).all():
            continue
        error = product_error(weights, [_rounded(w, scales[channels], grid) for w in weights], moments)
        if error < least:
            best, least = scales, error
    return best


def input_channels(shared: SharedInput, k: int) -> Tensor:
    """[K] int64: which output of the producer each input is."""
    runs = k // shared.run
    run = torch.arange(runs) // shared.copies
    return (run[:, None] * shared.run + torch.arange(shared.run)).flatten()


def fold(layer: LayerTensors, shared: SharedInput, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Divide what makes an input by `scales` and multiply what reads it; returns the inputs' divisors [K].

    A norm is rounded to `dtype` here, and the matrices are multiplied by what its rounded weights amount to.
    """
    weight = layer[f"{shared.producer}.weight"]
    if weight.dim() == 1:
        rounded = (weight / scales).to(dtype).float()
        exact = torch.isfinite(rounded) & (rounded != 0) & (weight != 0)
        scales = torch.where(exact, weight / rounded, torch.ones_like(scales))
        layer[f"{shared.producer}.weight"] = torch.where(exact, rounded, weight)
    else:
        layer[f"{shared.producer}.weight"] = weight / scales[:, None]
    bias = layer.get(f"{shared.producer}.bias")
    if bias is not None:
        layer[f"{shared.producer}.bias"] = bias / scales
    k = layer[f"{shared.matrices[0]}.weight"].shape[1]
    divisors = scales[input_channels(shared, k).to(scales.device)]
    for name in shared.matrices:
        layer[f"{name}.weight"] = layer[f"{name}.weight"] * divisors
    return divisors


def product_error(weights: Sequence[Tensor], rounded: Sequence[Tensor], moments: Moments) -> float:
    """The mean over the text of ‖(W - Ŵ)x‖², for all matrices together."""
    return sum(
        product_size(w - r, moments)
        for whole, all_rounded in zip(weights, rounded, strict=True)
        for w, r in zip(row_chunks(whole), row_chunks(all_rounded), strict=True)
    )


def product_size(weight: Tensor, moments: Moments) -> float:
    """The mean over the text of ‖Wx‖²."""
    return sum(float(((rows @ moments.second) * rows).sum()) for rows in row_chunks(weight))


def _rounded(weight: Tensor, scales: Tensor, grid: Grid) -> Tensor:
    """What a matrix amounts to when it is rounded with its columns scaled."""
    quantized: Quantized = round_to_grid(weight * scales, grid)
    return quantized.dequantize() / scales


def _relative_size(weights: Sequence[Tensor], grid: Grid) -> Tensor:
    """[K]: how large the weights of a column are beside the largest of their groups, on average over all rows."""
    total = torch.zeros(weights[0].shape[1], device=weights[0].device)
    for weight in weights:
        for rows in row_chunks(weight):
            groups = rows.abs().reshape(len(rows), -1, grid.group_size)
            total += (groups / (groups.amax(-1, keepdim=True) + 1e-6)).reshape(rows.shape).sum(0)
    return total / sum(len(weight) for weight in weights)


def _mean_by_channel(values: Tensor, channels: Tensor, count: int) -> Tensor:
    """[count]: the mean of the values of each channel."""
    copies = len(channels) // count
    return torch.zeros(count, device=values.device).index_add_(0, channels, values) / copies
