"""Triton: one launch adds up qkv, normalises and rotates its heads, and writes keys and values to the cache.

A program has some heads of one token, padded to a power of two, and reads every element of q and k twice: as itself
and as the other one of its pair, which the cache answers. 8-bit storage is computed with float32 and integers alone
(rounding as `paged_kv.quantize` does), so it needs no conversion instructions and runs on every GPU.
Sources: RoFormer (arXiv 2104.09864); the E4M3 format is that of arXiv 2209.05433.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmcli_kernels.activations import Partials
from llmcli_kernels.aot import AotVariant
from llmcli_kernels.paged_kv import LARGEST, PagedKV
from llmcli_kernels.rope_kv_write import QKNorm
from llmcli_kernels.triton_activations import added_up

# More heads a program make wider loads; fewer make enough programs for a GPU when there are few tokens.
MANY_HEADS = 4096
HEADS_PER_PROGRAM = 4
SMALLEST_SCALE: tl.constexpr = tl.constexpr(2.0**-126)  # of less the inverse is no float32


def rope_kv_write(
    qkv: Tensor | Partials,
    positions: Tensor,
    slots: Tensor,
    cos_sin: Tensor,
    kv: PagedKV,
    num_heads: int,
    qk_norm: QKNorm | None,
) -> Tensor:
    parts = qkv.parts if isinstance(qkv, Partials) else qkv.unsqueeze(0)
    tokens, heads = parts.shape[1], num_heads + 2 * kv.num_kv_heads
    q = torch.empty(tokens, num_heads, kv.head_size, dtype=qkv.dtype, device=parts.device)
    block_heads = 1 if tokens * heads <= MANY_HEADS else HEADS_PER_PROGRAM
    fp8 = kv.keys.dtype == torch.float8_e4m3fn
    _rope_kv_write_kernel[(tokens, triton.cdiv(heads, block_heads))](
        parts,
        parts.stride(0),
        parts.stride(1),
        positions,
        slots,
        cos_sin,
        None if qk_norm is None else qk_norm.q_weight,
        None if qk_norm is None else qk_norm.k_weight,
        0.0 if qk_norm is None else qk_norm.eps,
        q,
        kv.keys.view(torch.uint8) if fp8 else kv.keys,
        kv.values.view(torch.uint8) if fp8 else kv.values,
        kv.key_scales,
        kv.value_scales,
        SPLIT=parts.shape[0],
        LARGEST=LARGEST.get(kv.keys.dtype, 0.0),
        HQ=num_heads,
        HKV=kv.num_kv_heads,
        D=kv.head_size,
        R=cos_sin.shape[1],
        BLOCK_SIZE=kv.block_size,
        BLOCK_HEADS=block_heads,
        PADDED_D=triton.next_power_of_2(kv.head_size),
        num_warps=1,
    )
    return q


@triton.jit
def _rope_kv_write_kernel(
    parts_ptr,
    stride_part,
    stride_token,
    positions_ptr,
    slots_ptr,
    cos_sin_ptr,
    q_weight_ptr,
    k_weight_ptr,
    eps,
    q_ptr,
    keys_ptr,
    values_ptr,
    key_scales_ptr,
    value_scales_ptr,
    SPLIT: tl.constexpr,
    LARGEST: tl.constexpr,
    HQ: tl.constexpr,
    HKV: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    PADDED_D: tl.constexpr,
):
    """Heads pid 1 · BLOCK_HEADS and following of token pid 0.

    parts [SPLIT, T, (HQ + 2 HKV) · D] float32, or of q's dtype when SPLIT is 1; positions, slots [T] int64; cos_sin
    [P, R] float32; weights [D] or None; q [T, HQ, D]; keys, values [blocks, HKV, BLOCK_SIZE, D], with float32
    scales [blocks, HKV, BLOCK_SIZE] where LARGEST, the largest number of the 8-bit storage, is not 0.
    """
    token = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * BLOCK_HEADS
    head = (start + tl.arange(0, BLOCK_HEADS))[:, None]
    is_q = head < HQ
    is_key = (head >= HQ) & (head < HQ + HKV)
    is_value = (head >= HQ + HKV) & (head < HQ + 2 * HKV)
    element = tl.arange(0, PADDED_D)[None, :]
    inside = element < D
    dtype: tl.constexpr = q_ptr.dtype.element_ty
    row = parts_ptr + token * stride_token + head * D

    x = added_up(row + element, (head < HQ + 2 * HKV) & inside, stride_part, SPLIT, dtype)
    other = paired_with(element, R)
    turns = (is_q | is_key) & (element < R)
    y = added_up(row + other, turns, stride_part, SPLIT, dtype)

    if q_weight_ptr is not None:
        inverse = inverse_rms(tl.sum(x * x, axis=1, keep_dims=True), D, eps)
        x = _normed(x, inverse, q_weight_ptr, k_weight_ptr, element, inside, is_q, is_value, dtype)
        y = _normed(y, inverse, q_weight_ptr, k_weight_ptr, other, element < R, is_q, is_value, dtype)

    x = rotated(x, y, element, cos_sin_ptr + tl.load(positions_ptr + token) * R, turns, R).to(dtype)

    if start < HQ:
        tl.store(q_ptr + (token * HQ + head) * D + element, x, mask=is_q & inside)
    if start + BLOCK_HEADS > HQ:
        slot = tl.load(slots_ptr + token)
        kv_head = tl.where(is_value, head - HQ - HKV, head - HQ)
        entry = ((slot // BLOCK_SIZE) * HKV + kv_head) * BLOCK_SIZE + slot % BLOCK_SIZE
        write_entry(x, keys_ptr, key_scales_ptr, entry, element, is_key, LARGEST, D)
        write_entry(x, values_ptr, value_scales_ptr, entry, element, is_value, LARGEST, D)


@triton.jit
def paired_with(element, R: tl.constexpr):
    """The other element of each one's pair; of those from R on it means nothing."""
    return tl.where(element < R // 2, element + R // 2, element - R // 2)


@triton.jit
def inverse_rms(squares, D: tl.constexpr, eps):
    """1 / root of the mean, from the sum of D squares; as exact as float32 is."""
    return tl.div_rn(1.0, tl.sqrt_rn(tl.div_rn(squares, D * 1.0) + eps))


@triton.jit
def rotated(x, y, element, angles_ptr, turns, R: tl.constexpr):
    """Float32 elements x of heads, turned with their pairs y where `turns`.

    Args:
        angles_ptr: R/2 cosines and R/2 sines of the position.
    """
    first = element < R // 2
    angle = angles_ptr + tl.where(first, element, element - R // 2)
    cos = tl.load(angle, mask=element < R, other=0.0)
    sin = tl.load(angle + R // 2, mask=element < R, other=0.0)
    return tl.where(turns, tl.fma(x, cos, tl.where(first, -y, y) * sin), x)


@triton.jit
def write_entry(x, part_ptr, scales_ptr, entry, element, mask, LARGEST: tl.constexpr, D: tl.constexpr):
    """Heads x [rows, PADDED_D] as entries [rows, 1] of keys or values, where the mask [rows, 1] says so."""
    if LARGEST > 0:
        x, scale = _quantized(x.to(tl.float32), LARGEST)
        tl.store(scales_ptr + entry, scale, mask=mask)
    tl.store(part_ptr + entry * D + element, x, mask=mask & (element < D))


@triton.jit
def _normed(x, inverse, q_weight_ptr, k_weight_ptr, element, mask, is_q, is_value, dtype: tl.constexpr):
    """x times the inverse root mean square of its head, rounded, times its weight, rounded; values as they are."""
    q_weight = tl.load(q_weight_ptr + element, mask=mask, other=0.0).to(tl.float32)
    k_weight = tl.load(k_weight_ptr + element, mask=mask, other=0.0).to(tl.float32)
    normed = (x * inverse).to(dtype).to(tl.float32) * tl.where(is_q, q_weight, k_weight)
    return tl.where(is_value, x, normed.to(dtype).to(tl.float32))


@triton.jit
def _quantized(x, LARGEST: tl.constexpr):
    """Rows of float32 x as int8 (LARGEST 127) or as the bytes of float8_e4m3fn (448), and their scales [rows, 1]."""
    # tl.max passes NaN over; as an infinity it is seen.
    amax = tl.max(tl.where(x == x, tl.abs(x), float("inf")), axis=1, keep_dims=True)
    finite = amax < float("inf")
    scale = tl.div_rn(amax, LARGEST)
    usable = finite & (scale >= SMALLEST_SCALE)
    scaled = tl.where(usable, x, 0.0) * tl.div_rn(1.0, tl.where(usable, scale, 1.0))
    scaled = tl.minimum(tl.maximum(scaled, -LARGEST), LARGEST)
    scale = tl.where(usable, scale, tl.where(finite, 0.0, float("nan")))
    if LARGEST == 127.0:
        # The last place of 1.5 · 2²³ is 1, so the sum is rounded to a whole number, and its low byte is int8.
        stored = (scaled + 12582912.0).to(tl.int32, bitcast=True).to(tl.int8)
    else:
        stored = _e4m3(scaled)
    return stored, scale


@triton.jit
def _e4m3(x):
    """The byte of float8_e4m3fn nearest to float32 x, |x| <= 448, ties to even."""
    bits = x.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    # Of 23 bits of mantissa 3 are kept, of the exponent's bias of 127 only 7.
    normal = ((size + 0x7FFFF + ((size >> 20) & 1)) >> 20) - (120 << 3)
    # Below 2⁻⁶ codes count steps of 2⁻⁹, the last place of 2¹⁴.
    subnormal = (tl.abs(x) + 16384.0).to(tl.int32, bitcast=True) - 0x46800000
    code = tl.where(size < 0x3C800000, subnormal, normal)
    return (((bits >> 24) & 0x80) | code).to(tl.uint8)


def aot_variants(capability: tuple[int, int], table: object) -> list[AotVariant]:
    """Every storage in both 16-bit dtypes, of a tensor and of summands with a norm; tiles are not in the table."""
    cases = [(dtype, storage) for dtype in ("fp16", "bf16") for storage in ("plain", "int8", "fp8")]
    few = [_variant(dtype, storage, split=8, norm=True, block_heads=1) for dtype, storage in cases]
    many = [
        _variant(dtype, storage, split=1, norm=False, block_heads=HEADS_PER_PROGRAM)
        for dtype, storage in cases
    ]
    return few + many


def _variant(dtype: str, storage: str, split: int, norm: bool, block_heads: int) -> AotVariant:
    stored = {"plain": dtype, "int8": "i8", "fp8": "u8"}[storage]
    signature = {
        "parts_ptr": f"*{dtype}" if split == 1 else "*fp32",
        "stride_part": "i32",
        "stride_token": "i32",
        "positions_ptr": "*i64",
        "slots_ptr": "*i64",
        "cos_sin_ptr": "*fp32",
        "eps": "fp32",
        "q_ptr": f"*{dtype}",
        "keys_ptr": f"*{stored}",
        "values_ptr": f"*{stored}",
    }
    constants: dict[str, Any] = {
        "SPLIT": split,
        "LARGEST": {"plain": 0.0, "int8": 127.0, "fp8": 448.0}[storage],
        "HQ": 32,
        "HKV": 8,
        "D": 128,
        "R": 128,
        "BLOCK_SIZE": 16,
        "BLOCK_HEADS": block_heads,
        "PADDED_D": 128,
    }
    optional = {
        "q_weight_ptr": f"*{dtype}" if norm else None,
        "k_weight_ptr": f"*{dtype}" if norm else None,
        "key_scales_ptr": None if storage == "plain" else "*fp32",
        "value_scales_ptr": None if storage == "plain" else "*fp32",
    }
    for name, kind in optional.items():
        if kind is None:
            constants[name] = None
        else:
            signature[name] = kind
    return AotVariant(
        kernel=_rope_kv_write_kernel,
        name=f"rope_kv_write {dtype}, cache {storage}, {split} summands{', head norm' if norm else ''}",
        signature=signature,
        constants=constants,
        not_divisible=(),
        num_warps=1,
        num_stages=1,
    )
