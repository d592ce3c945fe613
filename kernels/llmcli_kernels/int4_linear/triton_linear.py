"""The int4 linear layer of the Triton kernel set: a kernel and a tile for each number of rows.

    rows <= skinny_rows     triton_skinny: encoded nibbles go to the tensor cores, scales come after the dot
    rows <= wide_rows       triton_wide: weights are made in registers
    more, or float32        triton_dequantize, a panel of rows at a time, and torch
    no whole tiles          the plain form, dequantized by torch, and torch

Owns that choice, how many programs share the k of a column, and the memory of the panels. Bounds and tiles are the
tuning table's; nothing is tried out at run time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from llmcli_kernels.activations import LinearOutput, Partials
from llmcli_kernels.gpu import Gpu
from llmcli_kernels.int4_linear import Int4Matrix, Int4Weight
from llmcli_kernels.int4_linear.triton_dequantize import launch_dequantize
from llmcli_kernels.int4_linear.triton_layout import TILE_K, TILE_ROWS, TiledInt4, fits_tiles, to_tiles
from llmcli_kernels.int4_linear.triton_skinny import launch_skinny, subnormals_survive
from llmcli_kernels.int4_linear.triton_wide import launch_wide
from llmcli_kernels.tuning import TuningTable

SPLITS = (1, 2, 3, 4, 6, 8, 12, 16)  # few numbers: whoever adds the summands up is compiled for each
MIN_SHARE_TILES = 4  # along k for one program, so that its loads run ahead
PARTIAL_ROWS = 32  # for more, summands are added up here
PANEL_BYTES = 128 << 20


@dataclass(frozen=True)
class Unpack:
    """How nibbles become numbers, see triton_unpack.py.

    Attributes:
        asm: in NVIDIA's assembly.
        subnormal: float16's as subnormal numbers, where the kernel for few rows has the choice.
    """

    asm: bool
    subnormal: bool


def unpack_for(gpu: Gpu) -> Unpack:
    """The fastest way that works on a GPU; compiles and runs a small product there."""
    return Unpack(asm=gpu.nvidia, subnormal=gpu.nvidia and subnormals_survive())


class TritonInt4Linear:
    """The operation; made once per kernel set. One stream at a time may use it, for the panels' memory."""

    def __init__(self, table: TuningTable, gpu: Gpu, unpack: Unpack | None = None) -> None:
        self._table = table
        self._num_sms = gpu.num_sms
        self._unpack = unpack_for(gpu) if unpack is None else unpack
        self._panel: Tensor | None = None
        # Bytes that a panel of any matrix may need: one that a captured graph reads must stay.
        self._largest = 0

    @property
    def panel_bytes(self) -> int:
        """Memory that is kept for dequantized weights."""
        return 0 if self._panel is None else self._panel.nbytes

    def pack_int4(self, weight: Int4Matrix, dtype: torch.dtype) -> TiledInt4 | Int4Weight:
        """Tiles, for every dtype; the weight itself where K or the groups do not fill tiles."""
        plain = weight.plain()
        if not fits_tiles(plain):
            return plain
        self._largest = max(self._largest, _panel_rows(plain.N, plain.K, dtype) * plain.K * dtype.itemsize)
        return to_tiles(plain)

    def __call__(self, x: Tensor, packed: TiledInt4 | Int4Weight, bias: Tensor | None) -> LinearOutput:
        rows = x.contiguous()
        if isinstance(packed, Int4Weight):
            return _multiply_plain(rows, packed, bias)
        bounds = self._table.pick("int4_linear", n=packed.N, k=packed.K)
        if rows.dtype == torch.float32 or rows.shape[0] > bounds["wide_rows"]:
            return self._multiply_dequantized(rows, packed, bias)
        if rows.shape[0] == 0:
            return rows.new_empty(0, packed.N)
        multiply = self._skinny if rows.shape[0] <= bounds["skinny_rows"] else self._wide
        return multiply(rows, packed, bias)

    def _skinny(self, x: Tensor, packed: TiledInt4, bias: Tensor | None) -> LinearOutput:
        tile = self._table.pick("int4_skinny", m=x.shape[0], n=packed.N, k=packed.K)
        parts = self._room(x, packed, triton.cdiv(packed.N, tile["BN"]), tile["programs_per_sm"])
        launch_skinny(
            x,
            packed,
            bias,
            parts,
            BN=tile["BN"],
            subnormal=self._unpack.subnormal,
            asm=self._unpack.asm,
            num_warps=tile["num_warps"],
            num_stages=tile["num_stages"],
        )
        return _output(parts, x.dtype)

    def _wide(self, x: Tensor, packed: TiledInt4, bias: Tensor | None) -> LinearOutput:
        tile = self._table.pick("int4_wide", m=x.shape[0], n=packed.N, k=packed.K)
        blocks = triton.cdiv(packed.N, tile["BN"]) * triton.cdiv(x.shape[0], tile["BM"])
        parts = self._room(x, packed, blocks, tile["programs_per_sm"])
        launch_wide(
            x,
            packed,
            bias,
            parts,
            BM=tile["BM"],
            BN=tile["BN"],
            GM=tile["GM"],
            one_dot=tile["one_dot"],
            asm=self._unpack.asm,
            num_warps=tile["num_warps"],
            num_stages=tile["num_stages"],
        )
        return _output(parts, x.dtype)

    def _room(self, x: Tensor, packed: TiledInt4, blocks: int, programs_per_sm: int) -> Tensor:
        """Empty [S, M, N]."""
        split = num_shares(blocks, packed.K // TILE_K, programs_per_sm * self._num_sms)
        dtype = x.dtype if split == 1 else torch.float32
        return torch.empty(split, x.shape[0], packed.N, dtype=dtype, device=x.device)

    def _multiply_dequantized(self, x: Tensor, packed: TiledInt4, bias: Tensor | None) -> Tensor:
        tile = self._table.pick("int4_dequantize", m=x.shape[0], n=packed.N, k=packed.K)
        panel = self._room_for_panel(x, packed)

        def weights(first: int, end: int) -> Tensor:
            out = panel[: (end - first) * packed.K].view(-1, packed.K)
            launch_dequantize(packed, first // TILE_ROWS, out, BN=tile["BN"], num_warps=tile["num_warps"])
            return out

        return _multiply_panels(x, packed.N, panel.numel() // packed.K, weights, bias)

    def _room_for_panel(self, x: Tensor, packed: TiledInt4) -> Tensor:
        """Memory of x.dtype for whole rows of tiles, kept for the next call."""
        num_bytes = _panel_rows(packed.N, packed.K, x.dtype) * packed.K * x.element_size()
        wanted = max(self._largest, num_bytes)
        if self._panel is None or self._panel.nbytes < wanted:
            self._panel = None
            self._panel = torch.empty(wanted, dtype=torch.uint8, device=x.device)
        return self._panel[:num_bytes].view(x.dtype)


def num_shares(blocks: int, num_tiles: int, programs: int) -> int:
    """How many programs share the tiles along k of each block of the output.

    As many as make no more than `programs` in all, which find a place on the GPU at once, and leave each some tiles.
    """
    wanted = max(1, min(programs // blocks, num_tiles // MIN_SHARE_TILES))
    return max(possible for possible in SPLITS if possible <= wanted)


def _output(parts: Tensor, dtype: torch.dtype) -> LinearOutput:
    if parts.shape[0] == 1:
        return parts[0]
    summands = Partials(parts, dtype)
    return summands if parts.shape[1] <= PARTIAL_ROWS else summands.add_up()


def _panel_rows(n: int, k: int, dtype: torch.dtype) -> int:
    """Rows of a panel: whole tiles, all panels about as large, and none above PANEL_BYTES unless one tile row is."""
    tiles = triton.cdiv(n, TILE_ROWS)
    panels = triton.cdiv(n * k * dtype.itemsize, PANEL_BYTES)
    return triton.cdiv(tiles, panels) * TILE_ROWS


def _multiply_plain(x: Tensor, weight: Int4Weight, bias: Tensor | None) -> Tensor:
    """What does not fill tiles: correct, not fast."""

    def weights(first: int, end: int) -> Tensor:
        rows = slice(first, end)
        part = Int4Weight(weight.q[rows], weight.zeros[rows], weight.scales[rows], weight.group_size)
        return part.dequantize(x.dtype)

    return _multiply_panels(x, weight.N, _panel_rows(weight.N, weight.K, torch.float32), weights, bias)


def _multiply_panels(
    x: Tensor, n: int, step: int, weights: Callable[[int, int], Tensor], bias: Tensor | None
) -> Tensor:
    """x [M, K] times `step` rows of weights at a time, which `weights(first, end)` makes."""
    y = x.new_empty(x.shape[0], n)
    for first in range(0, n, step):
        end = min(first + step, n)
        w = weights(first, end)
        if bias is None:
            torch.mm(x, w.T, out=y[:, first:end])
        else:
            torch.addmm(bias[first:end], x, w.T, out=y[:, first:end])
    return y
