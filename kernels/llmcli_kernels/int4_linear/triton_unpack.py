"""Triton: from the half-words of a tile to 16-bit numbers that tensor cores multiply.

Owns what a nibble becomes, twice each: as inline assembly for NVIDIA's GPUs, two numbers in one instruction, and in
plain Triton for the interpreter and other GPUs. Both give the same bits. Launches nothing.

A number's bits are made where the nibble q lies, by masking all else off (and setting the exponent):

    float16, subnormal   q · 2^-24 (nibbles 0 and 2) or 16 q · 2^-24 (1 and 3): the bare nibble is a subnormal number
    float16              1024 + q or 1024 + 16 q: the exponent 0x6400 makes the lowest bit of the mantissa worth 1
    bfloat16             128 + q: 0x4300; seven bits of mantissa have room for one nibble, so each needs a shift

The planes of a tile row are its runs of 32 k, in the order of k: 0 and 1 from nibbles 0 and 2, 2 and 3 from 1 and 3.
"""

import triton
import triton.language as tl

SUBNORMAL_SCALE = tl.constexpr(2.0**24)  # takes 2^-24 off again

SUBNORMAL_ASM = tl.constexpr("""{
    .reg .b32 high;
    shr.u32 high, $4, 8;
    and.b32 $0, $4, 0x000f000f;
    and.b32 $1, high, 0x000f000f;
    and.b32 $2, $4, 0x00f000f0;
    and.b32 $3, high, 0x00f000f0;
}""")
FLOAT16_ASM = tl.constexpr("""{
    .reg .b32 high;
    shr.u32 high, $4, 8;
    lop3.b32 $0, $4, 0x000f000f, 0x64006400, 0xea;
    lop3.b32 $1, high, 0x000f000f, 0x64006400, 0xea;
    lop3.b32 $2, $4, 0x00f000f0, 0x64006400, 0xea;
    lop3.b32 $3, high, 0x00f000f0, 0x64006400, 0xea;
}""")
BFLOAT16_ASM = tl.constexpr("""{
    .reg .b32 second, third, fourth;
    shr.u32 second, $4, 4;
    shr.u32 third, $4, 8;
    shr.u32 fourth, $4, 12;
    lop3.b32 $0, $4, 0x000f000f, 0x43004300, 0xea;
    lop3.b32 $1, third, 0x000f000f, 0x43004300, 0xea;
    lop3.b32 $2, second, 0x000f000f, 0x43004300, 0xea;
    lop3.b32 $3, fourth, 0x000f000f, 0x43004300, 0xea;
}""")
WEIGHTS_FLOAT16_ASM = tl.constexpr("""{
    .reg .b32 high, sixteenth, first, second, third, fourth;
    mov.b32 sixteenth, 0x2c002c00;
    shr.u32 high, $4, 8;
    lop3.b32 first, $4, 0x000f000f, 0x64006400, 0xea;
    lop3.b32 second, high, 0x000f000f, 0x64006400, 0xea;
    lop3.b32 third, $4, 0x00f000f0, 0x64006400, 0xea;
    lop3.b32 fourth, high, 0x00f000f0, 0x64006400, 0xea;
    add.rn.f16x2 first, first, $5;
    add.rn.f16x2 second, second, $6;
    fma.rn.f16x2 third, third, sixteenth, $7;
    fma.rn.f16x2 fourth, fourth, sixteenth, $8;
    mul.rn.f16x2 $0, first, $9;
    mul.rn.f16x2 $1, second, $10;
    mul.rn.f16x2 $2, third, $11;
    mul.rn.f16x2 $3, fourth, $12;
}""")
WEIGHTS_BFLOAT16_ASM = tl.constexpr("""{
    .reg .b32 one, nothing, first, second, third, fourth;
    mov.b32 one, 0x3f803f80;
    mov.b32 nothing, 0x80008000;
    shr.u32 second, $4, 8;
    shr.u32 third, $4, 4;
    shr.u32 fourth, $4, 12;
    lop3.b32 first, $4, 0x000f000f, 0x43004300, 0xea;
    lop3.b32 second, second, 0x000f000f, 0x43004300, 0xea;
    lop3.b32 third, third, 0x000f000f, 0x43004300, 0xea;
    lop3.b32 fourth, fourth, 0x000f000f, 0x43004300, 0xea;
    fma.rn.bf16x2 first, first, one, $5;
    fma.rn.bf16x2 second, second, one, $6;
    fma.rn.bf16x2 third, third, one, $7;
    fma.rn.bf16x2 fourth, fourth, one, $8;
    fma.rn.bf16x2 $0, first, $9, nothing;
    fma.rn.bf16x2 $1, second, $10, nothing;
    fma.rn.bf16x2 $2, third, $11, nothing;
    fma.rn.bf16x2 $3, fourth, $12, nothing;
}""")


@triton.jit
def encoded_planes(words, dtype: tl.constexpr, SUBNORMAL: tl.constexpr, ASM: tl.constexpr):
    """int16 [BN, 32] -> four planes [BN, 32] of dtype, encoded as above."""
    if ASM:
        if dtype == tl.bfloat16:
            return tl.inline_asm_elementwise(
                BFLOAT16_ASM, "=&r,=&r,=&r,=&r,r", [words], (tl.bfloat16,) * 4, is_pure=True, pack=2
            )
        else:
            text: tl.constexpr = SUBNORMAL_ASM if SUBNORMAL else FLOAT16_ASM
            return tl.inline_asm_elementwise(
                text, "=&r,=&r,=&r,=&r,r", [words], (tl.float16,) * 4, is_pure=True, pack=2
            )
    elif dtype == tl.bfloat16:
        return (
            _number(words, 0x000F, 0x4300, dtype),
            _number(words >> 8, 0x000F, 0x4300, dtype),
            _number(words >> 4, 0x000F, 0x4300, dtype),
            _number(words >> 12, 0x000F, 0x4300, dtype),
        )
    else:
        exponent: tl.constexpr = 0 if SUBNORMAL else 0x6400
        return (
            _number(words, 0x000F, exponent, dtype),
            _number(words >> 8, 0x000F, exponent, dtype),
            _number(words, 0x00F0, exponent, dtype),
            _number(words >> 8, 0x00F0, exponent, dtype),
        )


@triton.jit
def _number(words, MASK: tl.constexpr, EXPONENT: tl.constexpr, dtype: tl.constexpr):
    return ((words & MASK) | EXPONENT).to(dtype, bitcast=True)


@triton.jit
def weight_planes(words, p0, p1, p2, p3, dtype: tl.constexpr, ASM: tl.constexpr):
    """int16 [BN, 32] and the scale_zeros of each plane's group, int32 [BN] -> four planes of weights [BN, 32].

    (q - zero) is exact. float16: times the scale, rounded once, so the weight is AutoAWQ's own to the bit; bfloat16:
    times the scale rounded to bfloat16.
    """
    o0, o1 = _offset(p0, 1024, dtype), _offset(p1, 1024, dtype)
    o2, o3 = _offset(p2, 64, dtype), _offset(p3, 64, dtype)  # the upper nibbles are divided by 16 before
    s0, s1, s2, s3 = _scale(p0, dtype), _scale(p1, dtype), _scale(p2, dtype), _scale(p3, dtype)
    if ASM:
        arguments = [words, o0, o1, o2, o3, s0, s1, s2, s3]
        constraints: tl.constexpr = "=&r,=&r,=&r,=&r,r,r,r,r,r,r,r,r,r"
        if dtype == tl.bfloat16:
            return tl.inline_asm_elementwise(
                WEIGHTS_BFLOAT16_ASM, constraints, arguments, (tl.bfloat16,) * 4, is_pure=True, pack=2
            )
        else:
            return tl.inline_asm_elementwise(
                WEIGHTS_FLOAT16_ASM, constraints, arguments, (tl.float16,) * 4, is_pure=True, pack=2
            )
    else:
        e0, e1, e2, e3 = encoded_planes(words, dtype, False, False)
        if dtype == tl.float16:
            sixteenth = tl.full((1, 1), 0.0625, dtype)
            return (e0 + o0) * s0, (e1 + o1) * s1, (e2 * sixteenth + o2) * s2, (e3 * sixteenth + o3) * s3
        else:
            return (e0 + o0) * s0, (e1 + o1) * s1, (e2 + o2) * s2, (e3 + o3) * s3


@triton.jit
def _offset(pairs, OFFSET: tl.constexpr, dtype: tl.constexpr):
    """What takes encoding and zero point off, [BN, 1] of dtype: -(OFFSET + zero), in bfloat16 -(128 + zero)."""
    if dtype == tl.bfloat16:
        return (-128.0 - _high(pairs).to(tl.float32)).to(dtype)[:, None]
    else:
        return -_high(pairs)[:, None] - tl.full((1, 1), OFFSET, dtype)


@triton.jit
def _scale(pairs, dtype: tl.constexpr):
    return _low(pairs).to(dtype)[:, None]


@triton.jit
def _low(pairs):
    return pairs.to(tl.int16).to(tl.float16, bitcast=True)


@triton.jit
def _high(pairs):
    return (pairs >> 16).to(tl.int16).to(tl.float16, bitcast=True)


@triton.jit
def word_pointers(first, BN: tl.constexpr):
    """[BN, 32]: the half-words of BN rows of a tile; `first` points to the first."""
    return first + tl.arange(0, BN)[:, None] * 32 + tl.arange(0, 32)[None, :]


@triton.jit
def pair_pointers(first, BN: tl.constexpr):
    """[BN / 8, 8]: scale and zero point of BN rows of a tile, the rows in order."""
    b = tl.arange(0, BN // 8)
    return first + (b // 8 * 64 + b % 8)[:, None] + tl.arange(0, 8)[None, :] * 8


@triton.jit
def load_pairs(at, BN: tl.constexpr):
    """scale_zeros of BN rows, int32 [BN], from pointers [BN / 8, 8]."""
    return tl.reshape(tl.load(at, eviction_policy="evict_first"), (BN,))


@triton.jit
def load_scale_zero(at, BN: tl.constexpr):
    """Scales and zero points of BN rows, float32 [BN, 1] each."""
    pairs = load_pairs(at, BN)
    return _low(pairs).to(tl.float32)[:, None], _high(pairs).to(tl.float32)[:, None]
