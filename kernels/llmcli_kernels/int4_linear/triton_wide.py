"""Triton: x wᵀ for many rows; the weights are made in registers and never lie in memory.

A program unpacks a tile of weights into the registers in which the tensor cores want their left operand, so that on
Hopper they go straight into its asynchronous instructions (as in Machete), on other GPUs into the plain ones (as in
Marlin). The tile of the table is a compromise: rows share the unpacking, and each wants registers.

Owns the kernel and its launch. Which tile for which size is the caller's business.
"""

from collections.abc import Mapping
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from llmcli_kernels.aot import AotVariant
from llmcli_kernels.int4_linear.triton_layout import TILE_GROUPS, TILE_K, TiledInt4
from llmcli_kernels.int4_linear.triton_unpack import load_pairs, pair_pointers, weight_planes, word_pointers
from llmcli_kernels.tuning import TuningTable


def launch_wide(
    x: Tensor,
    packed: TiledInt4,
    bias: Tensor | None,
    parts: Tensor,
    *,
    BM: int,
    BN: int,
    GM: int,
    one_dot: bool,
    asm: bool,
    num_warps: int,
    num_stages: int,
) -> None:
    """Fill parts [S, M, N] with the summands of x wᵀ + bias; a float32 each, or of x.dtype where S is 1.

    Args:
        x: [M, K] contiguous, float16 or bfloat16.
        BM: rows of a program.
        BN: output columns of a program, 64 or 128.
        GM: blocks of rows that are worked on before the next columns, so that weights are found in the cache.
        one_dot: all of a tile in one product, which runs on while the next is unpacked, or a product for each run
            of 32 k, which takes fewer registers.
    """
    split, rows, n = parts.shape
    _int4_wide_kernel[(triton.cdiv(rows, BM) * triton.cdiv(n, BN), split)](
        x,
        packed.words,
        packed.scale_zeros,
        bias,
        parts,
        rows,
        n,
        packed.K // TILE_K,
        BM=BM,
        BN=BN,
        GM=GM,
        GROUP=packed.tile_group,
        ONE_DOT=one_dot,
        STAGES=num_stages,
        ASM=asm,
        num_warps=num_warps,
        num_stages=num_stages,
    )


@triton.jit(do_not_specialize=["M", "num_tiles"])
def _int4_wide_kernel(
    x_ptr,
    words_ptr,
    pairs_ptr,
    bias_ptr,
    parts_ptr,
    M,
    N,
    num_tiles,
    BM: tl.constexpr,
    BN: tl.constexpr,
    GM: tl.constexpr,
    GROUP: tl.constexpr,
    ONE_DOT: tl.constexpr,
    STAGES: tl.constexpr,
    ASM: tl.constexpr,
):
    """A block of BM rows and BN columns, of the summand that share pid 1 of the tiles along k makes.

    x [M, num_tiles · 128] float16 or bfloat16; words, pairs (scale_zeros) as in TiledInt4; bias [N] or None, in the
    first summand; parts [S, M, N]. Shares differ by one tile at most and may be empty.
    """
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    PAIR_ROWS: tl.constexpr = 128 // GROUP
    block_m, block_n = _block(tl.cdiv(M, BM), tl.cdiv(N, BN), GM)
    share = tl.program_id(1)
    first = (share * num_tiles) // tl.num_programs(1)
    end = ((share + 1) * num_tiles) // tl.num_programs(1)

    tile_row = block_n % (128 // BN) * BN
    tile = (block_n // (128 // BN)).to(tl.int64) * num_tiles + first
    words_at = word_pointers(words_ptr + (tile * 128 + tile_row) * 32, BN)
    pairs_at = pair_pointers(pairs_ptr + tile * (PAIR_ROWS * 128) + tile_row, BN)
    K_OF_LOAD: tl.constexpr = 128 if ONE_DOT else 32
    # Rows beyond M read the last one: nothing is masked in the loop, and nothing of them is stored.
    row = tl.minimum(tl.arange(0, BM), M - 1 - block_m * BM)
    x_at = x_ptr + ((block_m * BM).to(tl.int64) * num_tiles + first) * 128
    offsets = row[None, :] * (num_tiles * 128) + tl.arange(0, K_OF_LOAD)[:, None]

    n = block_n * BN + tl.arange(0, BN)
    total = tl.zeros((BN, BM), tl.float32)
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + n, mask=n < (1 - share) * N, other=0.0)
        total += bias.to(tl.float32)[:, None]
    # num_stages is said here, because then all loads run ahead, not only those that feed a dot.
    for _ in tl.range(first, end, num_stages=STAGES):
        words = tl.load(words_at)
        w0, w1, w2, w3 = _weights(words, pairs_at, GROUP, dtype, ASM)
        if ONE_DOT:
            # [BN, 32, upper bit, lower bit of the run]: the run is the upper part of k, so no register moves.
            runs = tl.join(tl.join(w0, w2), tl.join(w1, w3))
            total = tl.dot(
                tl.reshape(tl.permute(runs, (0, 2, 3, 1)), (BN, 128)), tl.load(x_at + offsets), total
            )
        else:
            total = tl.dot(w0, tl.load(x_at + offsets), total)
            total = tl.dot(w1, tl.load(x_at + offsets + 32), total)
            total = tl.dot(w2, tl.load(x_at + offsets + 64), total)
            total = tl.dot(w3, tl.load(x_at + offsets + 96), total)
        words_at += 128 * 32
        pairs_at += PAIR_ROWS * 128
        x_at += 128

    row = block_m * BM + tl.arange(0, BM)
    at = parts_ptr + (share.to(tl.int64) * M + row)[:, None] * N + n[None, :]
    out = tl.trans(total.to(parts_ptr.dtype.element_ty))
    tl.store(at, out, mask=(row[:, None] < M) & (n[None, :] < N))


@triton.jit
def _block(num_m, num_n, GM: tl.constexpr):
    """The blocks in the order that GM says."""
    pid = tl.program_id(0)
    first = pid // (GM * num_n) * GM
    height = tl.minimum(num_m - first, GM)
    within = pid % (GM * num_n)
    return first + within % height, within // height


@triton.jit
def _weights(words, pairs_at, GROUP: tl.constexpr, dtype: tl.constexpr, ASM: tl.constexpr):
    """The four planes of a tile's weights, [BN, 32] each."""
    BN: tl.constexpr = words.shape[0]
    p0 = load_pairs(pairs_at, BN)
    if GROUP == 128:
        return weight_planes(words, p0, p0, p0, p0, dtype, ASM)
    elif GROUP == 64:
        p2 = load_pairs(pairs_at + 128, BN)
        return weight_planes(words, p0, p0, p2, p2, dtype, ASM)
    else:
        p1 = load_pairs(pairs_at + 128, BN)
        p2 = load_pairs(pairs_at + 256, BN)
        return weight_planes(words, p0, p1, p2, load_pairs(pairs_at + 384, BN), dtype, ASM)


def aot_variants(capability: tuple[int, int], table: TuningTable) -> list[AotVariant]:
    """Every tile for both dtypes in groups of 128; for float16 in smaller groups, too, one with a bias."""
    variants = []
    for tile in table.configs("int4_wide"):
        variants += [_variant(tile, "fp16", group, bias=False) for group in TILE_GROUPS]
        variants.append(_variant(tile, "bf16", TILE_K, bias=False))
        variants.append(_variant(tile, "fp16", TILE_K, bias=True))
    return variants


def _variant(tile: Mapping[str, Any], dtype: str, group: int, *, bias: bool) -> AotVariant:
    shape = f"{tile['BM']}x{tile['BN']}, {tile['num_warps']} warps, {tile['num_stages']} stages"
    signature = {
        "x_ptr": f"*{dtype}",
        "words_ptr": "*i16",
        "pairs_ptr": "*i32",
        # Of few blocks of rows several programs share the k, and leave summands.
        "parts_ptr": "*fp32" if tile["BM"] <= 64 else f"*{dtype}",
        "M": "i32",
        "N": "i32",
        "num_tiles": "i32",
    }
    constants: dict[str, Any] = {
        "BM": tile["BM"],
        "BN": tile["BN"],
        "GM": tile["GM"],
        "GROUP": group,
        "ONE_DOT": tile["one_dot"],
        "STAGES": tile["num_stages"],
        "ASM": True,
    }
    return AotVariant(
        kernel=_int4_wide_kernel,
        name=f"int4_wide {dtype}, groups of {group}{', bias' if bias else ''}, {shape}"
        + (", one dot" if tile["one_dot"] else ""),
        signature=signature | {"bias_ptr": f"*{dtype}"} if bias else signature,
        constants=constants if bias else constants | {"bias_ptr": None},
        not_divisible=("M", "num_tiles"),
        num_warps=tile["num_warps"],
        num_stages=tile["num_stages"],
        unit="weight",
        work=tile["BN"] * TILE_K,
    )
