"""The layout of weights that the compiled kernel reads: one record per 64 output rows and 128 k.

Owns what a record holds. Knows nothing of LLVM; the code generators take every offset from here.

A record of a weight with `parts` = 128 / group_size groups:

    4096 bytes     16 words x 64 rows x 4 bytes: word j holds k = 4j .. 4j+3 in the low nibbles and
                   k = 64+4j .. in the high ones
    128 * parts    float16 scales [parts, 64]
    64 * parts     uint8 zeros [parts, 64]

One 64-byte load is 16 rows x 4 k, twice: an integer dot product with four activations repeated in all lanes
accumulates 16 rows, and nothing is ever summed across lanes. The records of 64 rows follow each other in the order
of k, so that a thread reads one ascending stream.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli_kernels.int4_linear import Int4Matrix, Int4Weight

GROUP = 128  # k of a record
PANEL = 64  # output rows of a record
GROUP_SIZES = (32, 64, 128)


@dataclass(frozen=True)
class Layout:
    """Offsets in a record.

    Attributes:
        bits: of a weight: 4, or 8 for `int8_linear`, whose words hold four weights each and whose records have no
            scales and zeros.
        group_size: k that share a scale of 4-bit weights: 32, 64 or 128.
    """

    bits: int
    group_size: int = GROUP

    @property
    def parts(self) -> int:
        return GROUP // self.group_size

    @property
    def weight_bytes(self) -> int:
        return PANEL * GROUP * self.bits // 8

    @property
    def scales(self) -> int | None:
        return self.weight_bytes if self.bits == 4 else None

    @property
    def zeros(self) -> int | None:
        return self.weight_bytes + 2 * PANEL * self.parts if self.bits == 4 else None

    @property
    def nbytes(self) -> int:
        return self.weight_bytes + (3 * PANEL * self.parts if self.bits == 4 else 0)


@dataclass(frozen=True, eq=False)
class PackedRecords:
    """Weights for the compiled kernel.

    Attributes:
        records: uint8 [N'/64, K/128, bytes of a record]; N' is N rounded up to a multiple of 64.
        no_bias: bfloat16 [N'], zeros.
        group_size: of the records: 32, 64 or 128.
        num_rows: N.
    """

    records: Tensor
    no_bias: Tensor
    group_size: int
    num_rows: int

    @property
    def N(self) -> int:
        return self.num_rows

    @property
    def padded_rows(self) -> int:
        """N rounded up to whole panels."""
        return self.records.shape[0] * PANEL

    @property
    def K(self) -> int:
        return self.records.shape[1] * GROUP

    @property
    def nbytes(self) -> int:
        return self.records.nbytes + self.no_bias.nbytes


def fits(weight: Int4Matrix) -> bool:
    """Whether records can hold this weight."""
    known = weight.group_size in GROUP_SIZES or weight.group_size % GROUP == 0
    return known and weight.N > 0 and weight.K > 0 and weight.K % GROUP == 0


def pack(weight: Int4Weight) -> PackedRecords:
    """The records of a weight that `fits`, in torch: what the kernels of `to_records.py` are compared with."""
    layout = Layout(4, min(weight.group_size, GROUP))
    panels, groups = -(-weight.N // PANEL), weight.K // GROUP
    records = torch.empty(panels, groups, layout.nbytes, dtype=torch.uint8)
    step = 16  # panels at a time: temporary tensors of a few MB
    for start in range(0, panels, step):
        rows = slice(start * PANEL, (start + step) * PANEL)
        part = records[start : start + step]
        _nibbles(part).copy_(_words(_fill(weight.q[rows])))
        repeats = max(1, weight.group_size // GROUP)
        scales, zeros = part[..., layout.weight_bytes :].tensor_split([2 * PANEL * layout.parts], dim=-1)
        scales.view(torch.float16).copy_(_by_record(weight.scales[rows], layout.parts, repeats))
        zeros.copy_(_by_record(weight.zeros[rows], layout.parts, repeats))
    no_bias = torch.zeros(panels * PANEL, dtype=torch.bfloat16)
    return PackedRecords(records, no_bias, layout.group_size, weight.N)


def _fill(rows: Tensor) -> Tensor:
    """Rows of zeros added up to whole panels."""
    return F.pad(rows, (0, 0, 0, -rows.shape[0] % PANEL))


def _nibbles(records: Tensor) -> Tensor:
    """The nibbles of records as int32 [panels, groups, 16 words, 64 rows]."""
    words = records.view(torch.int32)[..., : Layout(4).weight_bytes // 4]
    return words.unflatten(-1, (GROUP // 8, PANEL))


def _words(q: Tensor) -> Tensor:
    """Int4Weight.q of whole panels as int32 [panels, groups, 16, 64]."""
    first, second = q.view(-1, GROUP // 2).chunk(2, dim=1)
    even = (first & 15) | (second << 4)
    odd = (first >> 4) | (second & 0xF0)
    words = torch.stack((even, odd), dim=-1).view(q.shape[0], -1).view(torch.int32)
    return words.view(-1, PANEL, q.shape[1] * 2 // GROUP, GROUP // 8).permute(0, 2, 3, 1)


def _by_record(values: Tensor, parts: int, repeats: int) -> Tensor:
    """One value per row and group as [panels, records, parts * 64]."""
    values = _fill(values.repeat_interleave(repeats, dim=1))
    return values.view(-1, PANEL, values.shape[1] // parts, parts).permute(0, 2, 3, 1).flatten(2)
