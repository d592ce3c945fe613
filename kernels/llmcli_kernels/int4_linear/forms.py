"""Forms of 4-bit matrices as files have them, beside `Int4Weight`: columns in a word, and several to be merged.

Owns these forms and the way from them to `Int4Weight`, on any device. Every `pack_int4` takes any form; an
implementation that has no use for one calls `plain()`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli_kernels.int4_linear import Int4Weight

COLUMNS = 8  # of a word
LOW_NIBBLES = 0x0F0F0F0F


@dataclass(frozen=True, eq=False)
class Int4Columns:
    """A quantized matrix with its outputs side by side: w[n, k] = (q[k, n] - zeros[k // group_size, n]) * scales[...].

    Attributes:
        words: int32 [K, N/8], eight q each.
        zeros: int32 [K/group_size, N/8], words like those.
        scales: float16 [K/group_size, N].
        group_size: number of neighbouring k that share a zero and a scale; divides K, which is even.
        order: nibble j of a word, from its low end, is column order[j] of its eight.

    Raises:
        ValueError: shapes or dtypes do not fit together.
    """

    words: Tensor
    zeros: Tensor
    scales: Tensor
    group_size: int
    order: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.words.dim() != 2 or self.K % 2 or self.group_size < 1 or self.K % self.group_size:
            raise ValueError(
                f"Int4Columns: words {list(self.words.shape)} are no matrix in groups of {self.group_size} k"
            )
        groups = self.K // self.group_size
        for name, part, form in (
            ("words", self.words, (torch.int32, (self.K, self.N // COLUMNS))),
            ("zeros", self.zeros, (torch.int32, (groups, self.N // COLUMNS))),
            ("scales", self.scales, (torch.float16, (groups, self.N))),
        ):
            if (part.dtype, part.shape) != form:
                raise ValueError(f"Int4Columns: {name} must be {form}, got {part.dtype} {list(part.shape)}")
        if sorted(self.order) != list(range(COLUMNS)):
            raise ValueError(f"Int4Columns: order must have each of 0 to 7 once, got {self.order}")

    @property
    def N(self) -> int:
        return self.words.shape[1] * COLUMNS

    @property
    def K(self) -> int:
        return self.words.shape[0]

    def plain(self) -> Int4Weight:
        """The same matrix row by row."""
        return Int4Weight(
            q=self._rows_of_pairs(),
            zeros=self._columns(self.zeros).t().contiguous(),
            scales=self.scales.t().contiguous(),
            group_size=self.group_size,
        )

    def _rows_of_pairs(self) -> Tensor:
        """uint8 [N, K/2], two neighbouring k a byte.

        Pairs are made on whole words, four columns at a time, so that only words and bytes have to change places.
        """
        even, odd = self.words[0::2], self.words[1::2]
        low = (even & LOW_NIBBLES) | ((odd & LOW_NIBBLES) << 4)
        high = ((even >> 4) & LOW_NIBBLES) | (odd & ~LOW_NIBBLES)
        pairs, eighth = even.shape
        rows = torch.empty((eighth, COLUMNS, pairs), dtype=torch.uint8, device=self.words.device)
        for words, columns in ((low, self.order[0::2]), (high, self.order[1::2])):
            by_column = words.t().contiguous().view(torch.uint8).view(eighth, pairs, 4)
            for byte, column in enumerate(columns):
                rows[:, column] = by_column[:, :, byte]
        return rows.view(self.N, pairs)

    def _columns(self, words: Tensor) -> Tensor:
        """int32 [R, N/8] -> uint8 [R, N], one nibble a byte."""
        packed = words.contiguous().view(torch.uint8).view(words.shape[0], -1, 4)
        nibbles = torch.stack((packed & 15, packed >> 4), dim=-1).view(words.shape[0], -1, COLUMNS)
        nibble_of_column = [self.order.index(column) for column in range(COLUMNS)]
        return nibbles[:, :, nibble_of_column].reshape(words.shape[0], -1)


@dataclass(frozen=True, eq=False)
class Int4Stack:
    """One matrix of the outputs of several, in order, as for merged q, k, v; nothing is copied.

    Raises:
        ValueError: K or group_size differ.
    """

    parts: tuple[Int4Weight | Int4Columns, ...]

    def __post_init__(self) -> None:
        forms = {(part.K, part.group_size) for part in self.parts}
        if len(forms) != 1:
            raise ValueError(f"Int4Stack: K and group_size must agree, got {sorted(forms)}")

    @property
    def N(self) -> int:
        return sum(part.N for part in self.parts)

    @property
    def K(self) -> int:
        return self.parts[0].K

    @property
    def group_size(self) -> int:
        return self.parts[0].group_size

    def plain(self) -> Int4Weight:
        return Int4Weight.cat([part.plain() for part in self.parts])
