"""Triton: x wᵀ for few rows, where reading the weights is all the time there is (SplitK: arXiv 2402.00025).

The encoded nibbles go to the tensor cores as they are; scale and zero point come after the dot, once per group and
output. So a weight costs one masking of a register that holds two, a share of one shift, and its part of a tensor
core instruction. Σx, which the zero points are taken off with, is one more product, with a matrix of ones: it comes
out where it is needed, of the very x that the dot saw.

Owns the kernel and its launch. Which tile for which size is the caller's business.
"""

from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmcli_kernels.aot import AotVariant
from llmcli_kernels.int4_linear import Int4Weight
from llmcli_kernels.int4_linear.triton_layout import TILE_GROUPS, TILE_K, TILE_ROWS, TiledInt4, to_tiles
from llmcli_kernels.int4_linear.triton_unpack import (
    SUBNORMAL_SCALE,
    encoded_planes,
    load_scale_zero,
    pair_pointers,
    word_pointers,
)
from llmcli_kernels.tuning import TuningTable

ROW_BLOCKS = (8, 16, 32)


def launch_skinny(
    x: Tensor,
    packed: TiledInt4,
    bias: Tensor | None,
    parts: Tensor,
    *,
    BN: int,
    subnormal: bool,
    asm: bool,
    num_warps: int,
    num_stages: int,
) -> None:
    """Fill parts [S, M, N] with the summands of x wᵀ + bias; a float32 each, or of x.dtype where S is 1.

    Args:
        x: [M, K] contiguous, M at most 32, float16 or bfloat16.
        BN: output columns of a program, 64 or 128.
        subnormal: whether float16 weights are encoded as subnormal numbers; bfloat16's never are.
    """
    split, rows, n = parts.shape
    _int4_skinny_kernel[(triton.cdiv(n, BN), split)](
        x,
        packed.words,
        packed.scale_zeros,
        bias,
        parts,
        rows,
        n,
        packed.K // TILE_K,
        BM=next(block for block in ROW_BLOCKS if block >= rows),
        BN=BN,
        GROUP=packed.tile_group,
        STAGES=num_stages,
        SUBNORMAL=subnormal and x.dtype == torch.float16,
        ASM=asm,
        num_warps=num_warps,
        num_stages=num_stages,
    )


def subnormals_survive() -> bool:
    """Whether the current NVIDIA GPU's tensor cores multiply subnormal numbers as what they are; runs the kernel.

    Those of NVIDIA are documented to (Fasi, Higham, Mikaitis, Pranesh: Numerical behavior of NVIDIA tensor cores,
    2021); a GPU that takes them for 0 would give weights that are all wrong.
    """
    q = (
        torch.arange(TILE_ROWS * TILE_K // 2, device="cuda")
        .remainder(251)
        .to(torch.uint8)
        .view(TILE_ROWS, -1)
    )
    zeros = torch.full((TILE_ROWS, 1), 8, dtype=torch.uint8, device="cuda")
    weight = Int4Weight(q, zeros, torch.ones_like(zeros, dtype=torch.float16), TILE_K)
    x = torch.arange(TILE_K, device="cuda").remainder(7).sub(3).to(torch.float16).unsqueeze(0)
    y = torch.empty(1, 1, TILE_ROWS, dtype=torch.float32, device="cuda")
    launch_skinny(x, to_tiles(weight), None, y, BN=64, subnormal=True, asm=True, num_warps=1, num_stages=4)
    expected = (weight.integers().float() - 8) * x.float()
    return torch.equal(y.flatten(), expected.sum(dim=1))  # small integers: exact in any order


@triton.jit(do_not_specialize=["M", "num_tiles"])
def _int4_skinny_kernel(
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
    GROUP: tl.constexpr,
    STAGES: tl.constexpr,
    SUBNORMAL: tl.constexpr,
    ASM: tl.constexpr,
):
    """Columns pid 0 · BN and following, of the summand that share pid 1 of the tiles along k makes.

    x [M, num_tiles · 128] float16 or bfloat16; words, pairs (scale_zeros) as in TiledInt4; bias [N] or None, in the
    first summand; parts [S, M, N]. Shares differ by one tile at most and may be empty.
    """
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    PAIR_ROWS: tl.constexpr = 128 // GROUP
    block, share = tl.program_id(0), tl.program_id(1)
    tile_row = block % (128 // BN) * BN
    first = (share * num_tiles) // tl.num_programs(1)
    end = ((share + 1) * num_tiles) // tl.num_programs(1)
    row, n = tl.arange(0, BM), block * BN + tl.arange(0, BN)

    tile = (block // (128 // BN)).to(tl.int64) * num_tiles + first
    words_at = word_pointers(words_ptr + (tile * 128 + tile_row) * 32, BN)
    pairs_at = pair_pointers(pairs_ptr + tile * (PAIR_ROWS * 128) + tile_row, BN)
    # Rows beyond M read the last one: nothing is masked in the loop, and nothing of them is stored.
    x_at = x_ptr + first * 128
    offsets = tl.minimum(row, M - 1)[None, :] * (num_tiles * 128) + tl.arange(0, 32)[:, None]

    minus_one = _minus_one(M, dtype, SUBNORMAL)
    total = tl.zeros((BN, BM), tl.float32)
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + n, mask=n < (1 - share) * N, other=0.0).to(tl.float32)
        total += (bias / SUBNORMAL_SCALE if SUBNORMAL else bias)[:, None]
    # num_stages is said here, because then all loads run ahead, not only those that feed a dot.
    for _ in tl.range(first, end, num_stages=STAGES):
        words = tl.load(words_at, eviction_policy="evict_first")
        q0, q1, q2, q3 = encoded_planes(words, dtype, SUBNORMAL, ASM)
        x0, x1 = tl.load(x_at + offsets), tl.load(x_at + offsets + 32)
        x2, x3 = tl.load(x_at + offsets + 64), tl.load(x_at + offsets + 96)
        if GROUP == 128:
            s, z = load_scale_zero(pairs_at, BN)
            total = _add_group(total, s, z, q0, q1, q2, q3, x0, x1, x2, x3, minus_one, SUBNORMAL)
        elif GROUP == 64:
            s, z = load_scale_zero(pairs_at, BN)
            total = _add_half(total, s, z, q0, q1, x0, x1, minus_one, 1, SUBNORMAL)
            s, z = load_scale_zero(pairs_at + 128, BN)
            total = _add_half(total, s, z, q2, q3, x2, x3, minus_one, 16, SUBNORMAL)
        else:
            s, z = load_scale_zero(pairs_at, BN)
            total = _add_run(total, s, z, q0, x0, minus_one, 1, SUBNORMAL)
            s, z = load_scale_zero(pairs_at + 128, BN)
            total = _add_run(total, s, z, q1, x1, minus_one, 1, SUBNORMAL)
            s, z = load_scale_zero(pairs_at + 256, BN)
            total = _add_run(total, s, z, q2, x2, minus_one, 16, SUBNORMAL)
            s, z = load_scale_zero(pairs_at + 384, BN)
            total = _add_run(total, s, z, q3, x3, minus_one, 16, SUBNORMAL)
        words_at += 128 * 32
        pairs_at += PAIR_ROWS * 128
        x_at += 128
    if SUBNORMAL:
        total *= SUBNORMAL_SCALE

    at = parts_ptr + share.to(tl.int64) * M * N + row[None, :] * N + n[:, None]
    tl.store(at, total.to(parts_ptr.dtype.element_ty), mask=(row[None, :] < M) & (n[:, None] < N))


@triton.jit
def _minus_one(M, dtype: tl.constexpr, SUBNORMAL: tl.constexpr):
    """[16, 32] of -1 in the unit of the encoding.

    M >> 31 is 0, which the compiler does not know: it would keep one register of equal numbers and copy it into
    the four that an instruction wants, before each.
    """
    if dtype == tl.bfloat16:
        bits: tl.constexpr = 0xBF80
    else:
        bits: tl.constexpr = 0x8001 if SUBNORMAL else 0xBC00
    place = tl.arange(0, 16)[:, None] * 32 + tl.arange(0, 32)[None, :]
    return (bits + (M >> 31) * place).to(tl.uint16).to(dtype, bitcast=True)


@triton.jit
def _to_rows(sums, BN: tl.constexpr):
    """[16, BM] of equal rows -> [BN, BM]; registers only, where a reduction would pass numbers between threads."""
    BM: tl.constexpr = sums.shape[1]
    return tl.reshape(tl.broadcast_to(tl.reshape(sums, (1, 16, BM)), (BN // 16, 16, BM)), (BN, BM))


@triton.jit
def _encoded_zero(z, dtype: tl.constexpr, FACTOR: tl.constexpr, SUBNORMAL: tl.constexpr):
    """What a nibble of the value z [BN, 1] is encoded as."""
    if dtype == tl.bfloat16:
        return z + 128.0
    elif SUBNORMAL:
        return z * FACTOR
    else:
        return z * FACTOR + 1024.0


@triton.jit
def _add(total, s, z, part, sums, dtype: tl.constexpr, FACTOR: tl.constexpr, SUBNORMAL: tl.constexpr):
    """total [BN, BM] + s (q - z) x, from a dot of encoded nibbles that count FACTOR-fold and from -Σx [16, BM]."""
    part = tl.fma(_encoded_zero(z, dtype, FACTOR, SUBNORMAL), _to_rows(sums, total.shape[0]), part)
    if dtype == tl.float16 and FACTOR > 1:
        s *= 1.0 / FACTOR
    return tl.fma(s, part, total)


@triton.jit
def _add_run(total, s, z, q, x, minus_one, FACTOR: tl.constexpr, SUBNORMAL: tl.constexpr):
    """A group of 32 k."""
    return _add(total, s, z, tl.dot(q, x), tl.dot(minus_one, x), x.dtype, FACTOR, SUBNORMAL)


@triton.jit
def _add_half(total, s, z, qa, qb, xa, xb, minus_one, FACTOR: tl.constexpr, SUBNORMAL: tl.constexpr):
    """64 k of a group."""
    part = tl.dot(qb, xb, tl.dot(qa, xa))
    sums = tl.dot(minus_one, xb, tl.dot(minus_one, xa))
    return _add(total, s, z, part, sums, xa.dtype, FACTOR, SUBNORMAL)


@triton.jit
def _add_group(total, s, z, q0, q1, q2, q3, x0, x1, x2, x3, minus_one, SUBNORMAL: tl.constexpr):
    """A group of 128 k."""
    if x0.dtype == tl.float16 and not SUBNORMAL:  # the offsets of the two halves differ
        total = _add_half(total, s, z, q0, q1, x0, x1, minus_one, 1, SUBNORMAL)
        return _add_half(total, s, z, q2, q3, x2, x3, minus_one, 16, SUBNORMAL)
    else:
        sums = tl.dot(minus_one, x3, tl.dot(minus_one, x2, tl.dot(minus_one, x1, tl.dot(minus_one, x0))))
        part = tl.dot(q1, x1, tl.dot(q0, x0))
        if SUBNORMAL:
            upper = tl.dot(q3, x3, tl.dot(q2, x2))
            part = tl.fma(upper, tl.full((1, 1), 0.0625, tl.float32), part)
        else:
            part = tl.dot(q3, x3, tl.dot(q2, x2, part))
        return _add(total, s, z, part, sums, x0.dtype, 1, SUBNORMAL)


def aot_variants(capability: tuple[int, int], table: TuningTable) -> list[AotVariant]:
    """Every tile for every encoding in groups of 128; the preferred ones in smaller groups, too, one with a bias."""
    variants = []
    for block in ROW_BLOCKS[:-1]:
        for tile in table.configs("int4_skinny", m=block):
            variants += [_variant(block, tile, "fp16", True, group, bias=False) for group in TILE_GROUPS]
            variants += [_variant(block, tile, "bf16", False, group, bias=False) for group in TILE_GROUPS]
            variants.append(_variant(block, tile, "fp16", False, TILE_K, bias=False))
            variants.append(_variant(block, tile, "fp16", True, TILE_K, bias=True))
    return variants


def _variant(
    block: int, tile: Mapping[str, Any], dtype: str, subnormal: bool, group: int, *, bias: bool
) -> AotVariant:
    encoding = f"{dtype}{', subnormal' if subnormal else ''}, groups of {group}{', bias' if bias else ''}"
    shape = f"{block}x{tile['BN']}, {tile['num_warps']} warps, {tile['num_stages']} stages"
    signature = {
        "x_ptr": f"*{dtype}",
        "words_ptr": "*i16",
        "pairs_ptr": "*i32",
        "parts_ptr": "*fp32",
        "M": "i32",
        "N": "i32",
        "num_tiles": "i32",
    }
    constants: dict[str, Any] = {
        "BM": block,
        "BN": tile["BN"],
        "GROUP": group,
        "STAGES": tile["num_stages"],
        "SUBNORMAL": subnormal,
        "ASM": True,
    }
    return AotVariant(
        kernel=_int4_skinny_kernel,
        name=f"int4_skinny {encoding}, {shape}",
        signature=signature | {"bias_ptr": f"*{dtype}"} if bias else signature,
        constants=constants if bias else constants | {"bias_ptr": None},
        not_divisible=("M", "num_tiles"),
        num_warps=tile["num_warps"],
        num_stages=tile["num_stages"],
        unit="weight",
        work=tile["BN"] * TILE_K,
    )
