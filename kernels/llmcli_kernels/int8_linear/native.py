"""int8 linear with integer dot products: the machinery of int4_linear, with records of 8-bit weights.

A record is 8192 bytes for 64 output rows and 128 k: 32 words x 64 rows x 4 bytes, word j holding k = 4j .. 4j+3; N is
filled up to whole panels of 64 rows. Activations are int8 in groups of 128 k, but for a few outliers, as for 4-bit
weights. Owns packing and the operation; bfloat16 activations and K in whole records only, all else goes to the
fallback.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli_kernels import huge_pages
from llmcli_kernels.int4_linear.native.product import product_stage
from llmcli_kernels.int4_linear.native.quantise import ACTIVATION_GROUP, Quantised, quantise_stage
from llmcli_kernels.int4_linear.native.records import GROUP, PANEL, Layout
from llmcli_kernels.int8_linear import Int8Weight
from llmcli_kernels.int8_linear.native_pack import pack_stage
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import Stage, words
from llmcli_kernels.native.rowwise import rowwise

PANELS_AT_ONCE = 64  # that are laid out at a time


@dataclass(frozen=True, eq=False)
class PackedBytes:
    """Weights for the native kernel.

    Attributes:
        records: int8 [N' / 64, K / 128, 8192]; N' is N rounded up to a multiple of 64.
        scales: float32 [N'].
        num_rows: N.
    """

    records: Tensor
    scales: Tensor
    num_rows: int

    @property
    def N(self) -> int:
        return self.num_rows

    @property
    def padded_rows(self) -> int:
        """N rounded up to whole panels."""
        return self.scales.shape[0]

    @property
    def K(self) -> int:
        return self.records.shape[1] * GROUP

    @property
    def nbytes(self) -> int:
        return self.records.nbytes + self.scales.nbytes


class NativeInt8Linear:
    """The operation; the fallback packs and multiplies what does not fit."""

    def __init__(
        self,
        host: Host,
        fallback_pack: Callable[[Tensor], Any],
        fallback_linear: Callable[[Tensor, Any], Tensor],
    ) -> None:
        self._host = host
        self._fallback_pack, self._fallback_linear = fallback_pack, fallback_linear

    def pack_int8(self, weight: Tensor) -> Any:
        fits = weight.dtype == torch.bfloat16 and weight.shape[1] % GROUP == 0 and weight.numel() > 0
        return self._pack(weight.contiguous()) if fits else self._fallback_pack(weight)

    def __call__(self, x: Tensor, packed: Any) -> Tensor:
        if not isinstance(packed, PackedBytes):
            return self._fallback_linear(x, packed)
        x, rows = x.to(torch.bfloat16).contiguous(), words(x.shape[0])
        y = torch.empty(x.shape[0], packed.padded_rows, dtype=torch.float32)
        quantised = self.room(x.shape[0], packed)
        quantise = quantise_stage(self._host, x.data_ptr(), quantised, rows.data_ptr(), packed.K)
        self._host.run(
            rowwise(self._host, rows.data_ptr(), quantise),
            self.stage(packed, quantised, y.data_ptr(), rows.data_ptr()),
        )
        return y if y.shape[1] == packed.N else y[:, : packed.N].contiguous()

    def _pack(self, weight: Tensor) -> PackedBytes:
        n, k = weight.shape
        panels, full = -(-n // PANEL), n // PANEL
        records = huge_pages.empty((panels, k // GROUP, Layout(8).nbytes), torch.int8)
        scales = torch.empty(panels * PANEL, dtype=torch.float32)
        stages = [pack_stage(self._host, weight, records[:full], scales)]
        if panels > full:
            last = F.pad(weight[full * PANEL :], (0, 0, 0, -n % PANEL))
            stages.append(pack_stage(self._host, last, records[full:], scales[full * PANEL :]))
        self._host.run(*stages)
        return PackedBytes(records, scales, n)

    def room(self, rows: int, packed: PackedBytes) -> Quantised:
        """For the activations of a product with `packed`."""
        return Quantised.room(rows, packed.K, ACTIVATION_GROUP)

    def stage(self, packed: PackedBytes, quantised: Quantised, y: int, rows_at: int) -> Stage:
        """The product of what is in `quantised`, to float32 [rows, packed.padded_rows] at address y."""
        panels, groups, _ = packed.records.shape
        return product_stage(
            self._host,
            Layout(8),
            packed.records.data_ptr(),
            packed.scales.data_ptr(),
            y,
            quantised,
            rows_at,
            panels,
            groups,
        )


def pack(weight: Tensor) -> PackedBytes:
    """The records of bfloat16 [N, K], K a multiple of 128, in torch: what the kernel's are compared with."""
    n, k = weight.shape
    panels, groups = -(-n // PANEL), k // GROUP
    records = torch.zeros(panels, groups, Layout(8).nbytes, dtype=torch.int8)
    scales = torch.zeros(panels * PANEL, dtype=torch.float32)
    for start in range(0, panels, PANELS_AT_ONCE):
        rows = slice(start * PANEL, (start + PANELS_AT_ONCE) * PANEL)
        part = Int8Weight.quantize(weight[rows])
        scales[rows][: part.N] = part.scales
        q = F.pad(part.q, (0, 0, 0, -part.N % PANEL)).view(torch.int32)
        words = q.view(-1, PANEL, groups, GROUP // 4).permute(0, 2, 3, 1)
        records[start : start + PANELS_AT_ONCE].view(torch.int32).view(words.shape).copy_(words)
    return PackedBytes(records, scales, n)
