"""int4 linear with integer dot products: activations as int8, weights 4-bit in memory and read once for all rows.

Owns which weights the native kernels take; everything else goes to the torch path, which it is given. The operation's
README.md has the maths and the error.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli_kernels.int4_linear import Int4Matrix, Int4Weight
from llmcli_kernels.int4_linear.forms import Int4Columns
from llmcli_kernels.int4_linear.native.product import product_stage
from llmcli_kernels.int4_linear.native.quantise import ACTIVATION_GROUP, Quantised, quantise_stage
from llmcli_kernels.int4_linear.native.records import GROUP, PANEL, Layout, PackedRecords, fits
from llmcli_kernels.int4_linear.native.to_records import parts_of, to_records
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import Stage, words
from llmcli_kernels.native.rowwise import rowwise

Order = tuple[int, ...] | None  # of a word's columns; None for weights in rows
SELF_TEST_ERROR = 0.03  # of the largest output; a wrong kernel is off by all of it


class NativeInt4Linear:
    """The operation for bfloat16 activations and weights that `records.fits`; all else is the torch path's.

    Args:
        torch_pack, torch_linear: the torch path.
        activation_group: most k that share an activation scale; never more than share a weight's scale.

    Attributes:
        unavailable: what went wrong when the kernel was compiled and tested; from then on everything goes to torch.
    """

    def __init__(
        self,
        host: Host,
        torch_pack: Callable[[Int4Matrix, torch.dtype], Any],
        torch_linear: Callable[[Tensor, Any, Tensor | None], Tensor],
        *,
        activation_group: int = ACTIVATION_GROUP,
    ) -> None:
        self._host = host
        self._torch_pack, self._torch_linear = torch_pack, torch_linear
        self._activation_group = activation_group
        self._tested: set[tuple[Order, int]] = set()
        self.unavailable: str | None = None

    def pack_int4(self, weight: Int4Matrix, dtype: torch.dtype) -> Any:
        if dtype == torch.bfloat16 and fits(weight):
            parts, group_size = parts_of(weight), min(weight.group_size, GROUP)
            if all(self._works(_order(part), group_size) for part in parts):
                return to_records(self._host, parts)
        return self._torch_pack(weight, dtype)

    def __call__(self, x: Tensor, packed: Any, bias: Tensor | None) -> Tensor:
        if not isinstance(packed, PackedRecords):
            return self._torch_linear(x, packed, bias)
        if x.dtype != torch.bfloat16:
            raise ValueError(f"int4_linear: the weights were packed for torch.bfloat16, x is {x.dtype}")
        x, bias, rows = x.contiguous(), padded_bias(packed, bias), words(x.shape[0])
        y = torch.empty(x.shape[0], packed.padded_rows, dtype=torch.bfloat16)
        quantised = self.room(x.shape[0], packed)
        quantise = quantise_stage(self._host, x.data_ptr(), quantised, rows.data_ptr(), packed.K)
        self._host.run(
            rowwise(self._host, rows.data_ptr(), quantise),
            self.stage(packed, bias, quantised, y.data_ptr(), rows.data_ptr()),
        )
        return y if y.shape[1] == packed.N else y[:, : packed.N].contiguous()

    def room(self, rows: int, packed: PackedRecords) -> Quantised:
        """For the activations of a product with `packed`."""
        return Quantised.room(rows, packed.K, min(self._activation_group, packed.group_size))

    def stage(self, packed: PackedRecords, bias: Tensor, quantised: Quantised, y: int, rows_at: int) -> Stage:
        """The product of what is in `quantised`, to bfloat16 [rows, packed.padded_rows] at address y.

        Args:
            bias: see `padded_bias`.
            rows_at: address of the number of rows.
        """
        panels, groups, _ = packed.records.shape
        return product_stage(
            self._host,
            Layout(4, packed.group_size),
            packed.records.data_ptr(),
            bias.data_ptr(),
            y,
            quantised,
            rows_at,
            panels,
            groups,
        )

    def _works(self, order: Order, group_size: int) -> bool:
        """Whether the kernels for an order of weights and a group size are compiled and right; tried once."""
        if self.unavailable is None and (order, group_size) not in self._tested:
            try:
                self._test(order, group_size)
                self._tested.add((order, group_size))
            except Exception as error:  # whatever it is: the torch path can do the work
                self.unavailable = str(error) or type(error).__name__
        return self.unavailable is None

    def _test(self, order: Order, group_size: int) -> None:
        """Two small products, compared with the definition.

        Raises:
            RuntimeError: the compiled kernel is wrong on this machine.
        """
        random = torch.Generator().manual_seed(0)
        n, k = PANEL + 8, 2 * GROUP
        groups = k // group_size
        columns = Int4Columns(
            words=torch.randint(-(2**31), 2**31, (k, n // 8), generator=random).to(torch.int32),
            zeros=torch.randint(-(2**31), 2**31, (groups, n // 8), generator=random).to(torch.int32),
            scales=torch.rand(groups, n, generator=random).add_(0.1).half(),
            group_size=group_size,
            order=order or tuple(range(8)),
        )
        weight = columns.plain()
        x = torch.randn(13, k, generator=random).to(torch.bfloat16)
        expected = x.float() @ weight.dequantize(torch.float32).T
        packed = to_records(self._host, [columns if order else weight])
        for rows in (1, 13):
            error = (self(x[:rows], packed, None).float() - expected[:rows]).abs().max()
            if not error <= SELF_TEST_ERROR * expected.abs().max():  # NaN fails too
                raise RuntimeError(f"the compiled kernel is wrong here: {rows} rows are off by {error:.3g}")


def _order(part: Int4Weight | Int4Columns) -> Order:
    return part.order if isinstance(part, Int4Columns) else None


def padded_bias(packed: PackedRecords, bias: Tensor | None) -> Tensor:
    """bfloat16 [packed.padded_rows]: the bias [N], or zeros for None."""
    if bias is None:
        return packed.no_bias
    return F.pad(bias, (0, packed.padded_rows - packed.N)).contiguous()
