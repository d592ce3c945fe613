"""Triton: tiles of int4 weights -> a plain matrix, for a product with torch.matmul.

From some number of rows on, cuBLAS with weights that were written out once is faster than making them in registers
for every block of rows; and it takes dtypes that the other kernels do not.

Owns the kernel and its launch; who multiplies, and where the matrix lies, is the caller's business.
"""

import triton
import triton.language as tl
from torch import Tensor

from llmcli_kernels.aot import AotVariant
from llmcli_kernels.int4_linear.triton_layout import TILE_K, TiledInt4
from llmcli_kernels.int4_linear.triton_unpack import load_scale_zero, pair_pointers, word_pointers
from llmcli_kernels.tuning import TuningTable


def launch_dequantize(packed: TiledInt4, first_tile: int, out: Tensor, *, BN: int, num_warps: int) -> None:
    """Write the weights of the tiles from `first_tile` on to out [rows, K], any float dtype, contiguous.

    Computed in float32 and rounded once.

    Args:
        BN: rows of a program, 64 or 128.
    """
    rows, k = out.shape
    _int4_dequantize_kernel[(triton.cdiv(rows, BN), k // TILE_K)](
        packed.words[first_tile:],
        packed.scale_zeros[first_tile:],
        out,
        rows,
        k // TILE_K,
        BN=BN,
        GROUP=packed.tile_group,
        num_warps=num_warps,
    )


@triton.jit(do_not_specialize=["num_rows", "num_tiles"])
def _int4_dequantize_kernel(
    words_ptr, pairs_ptr, out_ptr, num_rows, num_tiles, BN: tl.constexpr, GROUP: tl.constexpr
):
    """Rows pid 0 · BN and following of tile pid 1 along k; words, pairs as in TiledInt4; out [num_rows, K]."""
    PAIR_ROWS: tl.constexpr = 128 // GROUP
    block, tile_k = tl.program_id(0), tl.program_id(1)
    tile_row = block % (128 // BN) * BN
    tile = (block // (128 // BN)).to(tl.int64) * num_tiles + tile_k

    words = tl.load(
        word_pointers(words_ptr + (tile * 128 + tile_row) * 32, BN), eviction_policy="evict_first"
    )
    pairs_at = pair_pointers(pairs_ptr + tile * (PAIR_ROWS * 128) + tile_row, BN)
    row = block * BN + tl.arange(0, BN)
    out_at = (
        out_ptr + row.to(tl.int64)[:, None] * (num_tiles * 128) + tile_k * 128 + tl.arange(0, 32)[None, :]
    )
    inside = row[:, None] < num_rows
    for run in tl.static_range(4):
        nibble = words >> (run % 2 * 2 + run // 2) * 4 & 15  # runs 0 to 3 are nibbles 0, 2, 1, 3
        scale, zero = load_scale_zero(pairs_at + run * 32 // GROUP * 128, BN)
        weights = (nibble.to(tl.float32) - zero) * scale
        tl.store(out_at + run * 32, weights.to(out_ptr.dtype.element_ty), mask=inside)


def aot_variants(capability: tuple[int, int], table: TuningTable) -> list[AotVariant]:
    """Every tile for every dtype; a program has no loop to count."""
    return [
        AotVariant(
            kernel=_int4_dequantize_kernel,
            name=f"int4_dequantize {dtype}, {tile['BN']} rows, {tile['num_warps']} warps",
            signature={
                "words_ptr": "*i16",
                "pairs_ptr": "*i32",
                "out_ptr": f"*{dtype}",
                "num_rows": "i32",
                "num_tiles": "i32",
            },
            constants={"BN": tile["BN"], "GROUP": 128},
            not_divisible=("num_rows", "num_tiles"),
            num_warps=tile["num_warps"],
            num_stages=1,
        )
        for tile in table.configs("int4_dequantize")
        for dtype in ("fp16", "bf16", "fp32")
    ]
