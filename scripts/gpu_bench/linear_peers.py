"""Other multiplications by 4-bit weights, each brought to one form: weights in, calls out.

Owns how each wants its weights. None but torch's are needed: gemlite and AutoAWQ are compared with where they are
installed, and nothing of them is part of this project.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli_kernels import Int4Weight

Calls = list[Callable[[Tensor], Tensor]]
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # column of each nibble of a word, as AutoAWQ writes it
AWQ_KERNEL = "awq/modules/triton/gemm.py"
AWQ_SPLIT_K = 8  # what AutoAWQ's own layers call it with
INNER_K_TILES = 8


@dataclass(frozen=True)
class Peer:
    """Something to compare with.

    Attributes:
        dtype: of the activations that it takes.
        prepare: weights to calls that take x [M, K], one for each weight.
        look: raises where the peer can not be used.
    """

    name: str
    dtype: torch.dtype
    prepare: Callable[[Sequence[Int4Weight]], Calls]
    look: Callable[[], object] = bool


def dense(weights: Sequence[Int4Weight]) -> Calls:
    """The dequantised weights through torch's matrix product: cuBLAS on a GPU."""
    return [partial(F.linear, weight=weight.dequantize(torch.float16)) for weight in weights]


def torch_int4(weights: Sequence[Int4Weight]) -> Calls:
    """`aten::_weight_int4pack_mm`: w = (q - 8) · scale + offset in bfloat16; the even k in the high nibble."""
    calls: Calls = []
    for weight in weights:
        swapped = (weight.q << 4) | (weight.q >> 4)
        packed = torch.ops.aten._convert_weight_to_int4pack(swapped, INNER_K_TILES)
        scales = weight.scales.float()
        offsets = (8.0 - weight.zeros.float()) * scales
        pairs = torch.stack((scales.T, offsets.T), dim=-1).bfloat16().contiguous()
        calls.append(partial(_torch_int4, packed, weight.group_size, pairs))
    return calls


def _torch_int4(packed: Tensor, group: int, pairs: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten._weight_int4pack_mm(x, packed, group, pairs)


def gemlite(weights: Sequence[Int4Weight]) -> Calls:
    """GemLite's layer, as its README builds it; it tunes itself at the first call of each shape."""
    import gemlite

    calls: Calls = []
    for weight in weights:
        layer = gemlite.GemLiteLinear(
            4,
            group_size=weight.group_size,
            in_features=weight.K,
            out_features=weight.N,
            input_dtype=gemlite.DType.FP16,
            output_dtype=gemlite.DType.FP16,
        )
        layer.pack(weight.integers(), weight.scales, weight.zeros.half(), None)
        calls.append(layer.forward)
    return calls


def look_for_gemlite() -> None:
    """Import it; a Hopper GPU without a table of its own gets the H100's, the same processor."""
    import gemlite

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    tables = Path(gemlite.__file__).parent / "configs"
    known = any(path.stem in properties.name.lower().replace(" ", "_") for path in tables.glob("*.json"))
    if not known and properties.major == 9:
        gemlite.load_config(str(tables / "h100.json"))


def autoawq(weights: Sequence[Int4Weight]) -> Calls:
    """AutoAWQ's Triton kernel, on words of eight columns."""
    kernel = _awq_module().awq_gemm_triton
    calls: Calls = []
    for weight in weights:
        words, zeros = awq_words(weight.integers()), awq_words(weight.zeros)
        scales = weight.scales.T.contiguous()
        calls.append(partial(_autoawq, kernel, words, scales, zeros))
    return calls


def _autoawq(kernel: Any, words: Tensor, scales: Tensor, zeros: Tensor, x: Tensor) -> Tensor:
    return kernel(x, words, scales, zeros, AWQ_SPLIT_K)


def awq_words(rows: Tensor) -> Tensor:
    """[N, any] small integers to int32 [any, N / 8]."""
    columns = rows.T.reshape(rows.shape[1], -1, 8)
    words = torch.zeros(columns.shape[:2], dtype=torch.int32)
    for place, column in enumerate(AWQ_ORDER):
        words |= columns[:, :, column].to(torch.int32) << (4 * place)
    return words


def _awq_module() -> Any:
    """The one file with the kernel; the package around it wants older libraries."""
    path = distribution("autoawq").locate_file(AWQ_KERNEL)
    spec = importlib.util.spec_from_file_location("awq_triton_gemm", str(path))
    if spec is None or spec.loader is None:
        raise ImportError(f"no {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TORCH_PEERS: tuple[Peer, ...] = (
    Peer("cuBLAS float16", torch.float16, dense),
    Peer("torch int4", torch.bfloat16, torch_int4),
)
OTHERS = (
    Peer("gemlite", torch.float16, gemlite, look_for_gemlite),
    Peer("AutoAWQ Triton", torch.float16, autoawq, _awq_module),
)
