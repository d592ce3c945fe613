"""The data that an int4 layer is checked and timed with: one matrix in several copies, as a model has many layers.

Timed together with a kernel that reads the result, because a layer that leaves more summands makes its reader slower.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llmcli_kernels.activations import as_tensor
from llmcli_kernels.gpu import current_gpu
from llmcli_kernels.int4_linear import Int4Weight
from llmcli_kernels.int4_linear.reference import int4_linear
from llmcli_kernels.tune.timing import num_copies
from llmcli_kernels.tune.tuner import Prepared
from llmcli_kernels.tuning import TuningTable

BOUND = 4e-3  # of float16 results and weights
Adapt = Callable[[TuningTable], TuningTable]


def prepare_linear(
    n: int, k: int, group_size: int, timed_rows: Sequence[int], device: str, adapt: Adapt
) -> Prepared:
    """x times a matrix [n, k], timed with x of several heights; checked with the first of them.

    Args:
        adapt: makes the operation take the way that is tuned, whatever the table has for so many rows.
    """
    from llmcli_kernels.int4_linear.triton_linear import TritonInt4Linear, unpack_for
    from llmcli_kernels.silu_mul.triton_silu_mul import silu_mul

    gpu = current_gpu()
    unpack = unpack_for(gpu)
    weight = _random_weight(n, k, group_size, device)
    x = torch.randn(max(timed_rows), k, device=device, dtype=torch.float16)
    checked = x[: timed_rows[0]]

    def layer(table: TuningTable) -> TritonInt4Linear:
        return TritonInt4Linear(adapt(table), gpu, unpack)

    packed = TritonInt4Linear(TuningTable("packs only", {}), gpu, unpack).pack_int4(weight, x.dtype)
    copies = [packed, *(copy.deepcopy(packed) for _ in range(num_copies(packed.nbytes) - 1))]

    def calls(table: TuningTable) -> list[Callable[[], object]]:
        linear = layer(table)
        return [partial(_read, silu_mul, linear, x[:rows], one) for rows in timed_rows for one in copies]

    return Prepared(
        expected=int4_linear(checked, weight, None),
        bound=BOUND,
        output=lambda table: as_tensor(layer(table)(checked, packed, None)),
        calls=calls,
    )


def _read(reader: Any, linear: Any, x: Tensor, packed: object) -> object:
    return reader(linear(x, packed, None))


def _random_weight(n: int, k: int, group_size: int, device: str) -> Int4Weight:
    groups = (n, k // group_size)
    return Int4Weight(
        q=torch.randint(0, 256, (n, k // 2), dtype=torch.uint8, device=device),
        zeros=torch.randint(0, 16, groups, dtype=torch.uint8, device=device),
        scales=(torch.rand(groups, device=device) * 0.01 + 0.001).half(),
        group_size=group_size,
    )
