"""`TiledInt4`: int4 weights in the tiles that the Triton kernels read, made from the plain form and taken apart again.

Owns the layout (README.md draws it); knows no kernel and launches none. Works on whatever device the weight lies on.

A tile is 128 rows of 128 k. A row of a tile is 32 half-words, one for each place e in a run of 32 k; the nibbles of
half-word e, lowest first, hold k = e, 64 + e, 32 + e and 96 + e. So one mask takes the same run of k out of all
half-words, two neighbouring k lie in one register as a tensor core wants them, and the two halves of a tile, with
groups of 64 its two groups, differ in the place of the nibble. Scale and zero point of a row lie in one 32-bit word,
because asynchronous copies move no less than that for a thread.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli_kernels.int4_linear import Int4Weight

TILE_ROWS = 128
TILE_K = 128
RUN = 32  # neighbouring k that one nibble of the half-words of a row holds
RUN_OF_NIBBLE = (0, 2, 1, 3)
TILE_GROUPS = (128, 64, 32)
SLICE_WEIGHTS = 1 << 24  # a few bytes of each are in flight


@dataclass(frozen=True, eq=False)
class TiledInt4:
    """A matrix in tiles; N is filled up with zeros to whole ones.

    Attributes:
        words: int16 [N'/128, K/128, 128, 32]; see above.
        scale_zeros: int32 [N'/128, K/G, 128], G = tile_group; the scale's float16 bits in the low half, the zero
            point as float16 in the high half. Row 64h + 8b + a of a tile is at place 64h + 8a + b, so that the
            rows of a thread of the tensor cores (a apart by 8) are neighbours.
        num_rows: N.
        group_size: the checkpoint's; a multiple of tile_group.
    """

    words: Tensor
    scale_zeros: Tensor
    num_rows: int
    group_size: int

    @property
    def N(self) -> int:
        return self.num_rows

    @property
    def K(self) -> int:
        return self.words.shape[1] * TILE_K

    @property
    def nbytes(self) -> int:
        return self.words.nbytes + self.scale_zeros.nbytes

    @property
    def tile_group(self) -> int:
        """Neighbouring k of one entry of scale_zeros: 128, 64 or 32."""
        return self.K // self.scale_zeros.shape[1]


def fits_tiles(weight: Int4Weight) -> bool:
    """Whether K and the groups are whole tiles and whole runs."""
    return weight.K % TILE_K == 0 and _tile_group(weight.group_size) is not None


def _tile_group(group_size: int) -> int | None:
    return next((group for group in TILE_GROUPS if group_size % group == 0), None)


def to_tiles(weight: Int4Weight, slice_weights: int = SLICE_WEIGHTS) -> TiledInt4:
    """Lay out a weight that fits.

    Args:
        slice_weights: about how many to lay out at a time, so that little memory is needed besides the result.

    Raises:
        ValueError: it does not fit.
    """
    group = _tile_group(weight.group_size)
    if group is None or not fits_tiles(weight):
        raise ValueError(f"to_tiles: K {weight.K} in groups of {weight.group_size} is not whole tiles")
    num_tiles = -(-weight.N // TILE_ROWS)
    shape = (num_tiles, weight.K // TILE_K, TILE_ROWS, RUN)
    words = torch.empty(shape, dtype=torch.int16, device=weight.q.device)
    step = max(1, slice_weights // (TILE_ROWS * weight.K))
    for first in range(0, num_tiles, step):
        rows = weight.q[first * TILE_ROWS : (first + step) * TILE_ROWS]
        words[first : first + step] = _words(_whole_tiles(rows))
    pairs = _bits(weight.scales) & 0xFFFF | _bits(weight.zeros.to(torch.float16)) << 16
    pairs = pairs.repeat_interleave(weight.group_size // group, dim=1)
    return TiledInt4(words, _rows_to_places(_whole_tiles(pairs)), weight.N, weight.group_size)


def from_tiles(tiled: TiledInt4) -> Int4Weight:
    """The weight that `to_tiles` was given, bit for bit."""
    nibbles = torch.stack([tiled.words >> 4 * nibble & 15 for nibble in range(4)], dim=2)
    runs = nibbles[:, :, list(RUN_OF_NIBBLE)].to(torch.uint8)  # the order is its own inverse
    integers = runs.permute(0, 3, 1, 2, 4).reshape(-1, tiled.K // 2, 2)[: tiled.N]
    pairs = _places_to_rows(tiled.scale_zeros)[: tiled.N, :: tiled.group_size // tiled.tile_group]
    return Int4Weight(
        q=integers[..., 0] | integers[..., 1] << 4,
        zeros=(pairs >> 16).to(torch.int16).view(torch.float16).to(torch.uint8),
        scales=pairs.to(torch.int16).view(torch.float16).contiguous(),
        group_size=tiled.group_size,
    )


def _whole_tiles(rows: Tensor) -> Tensor:
    return torch.nn.functional.pad(rows, (0, 0, 0, -rows.shape[0] % TILE_ROWS))


def _words(q: Tensor) -> Tensor:
    """Int4Weight.q of whole tiles -> int16 [tiles, K/128, 128, 32]."""
    runs = torch.stack((q & 15, q >> 4), dim=-1).view(-1, TILE_ROWS, q.shape[1] * 2 // TILE_K, 4, RUN)
    first, second, third, fourth = (runs[:, :, :, run] for run in RUN_OF_NIBBLE)
    halves = torch.stack((first | second << 4, third | fourth << 4), dim=-1)
    return halves.view(torch.int16).squeeze(-1).transpose(1, 2)


def _bits(numbers: Tensor) -> Tensor:
    """float16 as int32, sign-extended."""
    return numbers.view(torch.int16).to(torch.int32)


def _rows_to_places(pairs: Tensor) -> Tensor:
    """[tiles * 128, groups] -> [tiles, groups, 128]."""
    return (
        pairs.view(-1, 2, 8, 8, pairs.shape[1]).permute(0, 4, 1, 3, 2).reshape(-1, pairs.shape[1], TILE_ROWS)
    )


def _places_to_rows(pairs: Tensor) -> Tensor:
    groups = pairs.shape[1]
    return pairs.view(-1, groups, 2, 8, 8).permute(0, 2, 4, 3, 1).reshape(-1, groups)
