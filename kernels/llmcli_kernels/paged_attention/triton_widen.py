"""Triton: from the words of an 8-bit cache to numbers that tensor cores multiply.

A word is two neighbouring numbers of a row, loaded as int16. `widen` makes two operands of a tile of words, the even
and the odd elements: a register of two words becomes two registers, each with a number of either word. Nothing crosses
from one word to another, so it does not matter which two the compiler puts into a register; and it is words that are
transposed on their way from shared memory, as bytes could not be.

Owns the conversions, each as inline assembly for NVIDIA's GPUs and in plain Triton for the interpreter and other GPUs.
Both give the same bits, exactly the numbers stored, but for the NaN of float8, which is never stored. Launches nothing.
"""

import triton
import triton.language as tl

# 1024 + (x + 128) in float16 has the bytes 0x64 and x + 128, which is x with its sign bit flipped.
INT8_FLOAT16_ASM = tl.constexpr("""{
    .reg .b32 odd, offset, minus;
    mov.b32 offset, 0x64806480;
    mov.b32 minus, 0xe480e480;
    lop3.b32 $0, $2, 0x00ff00ff, offset, 0x6a;
    prmt.b32 odd, $2, 0x64646464, 0x4341;
    xor.b32 odd, odd, 0x00800080;
    add.rn.f16x2 $0, $0, minus;
    add.rn.f16x2 $1, odd, minus;
}""")

# bfloat16 has 128 + (x & 127) as 0x43 and these bits; 128 is taken off it, or with the sign bit 256, which is 128 with
# the bit at that place.
INT8_BFLOAT16_ASM = tl.constexpr("""{
    .reg .b32 odd, low, sign, minus_one, offset;
    mov.b32 minus_one, 0xbf80bf80;
    mov.b32 offset, 0x43004300;
    lop3.b32 low, $2, 0x007f007f, offset, 0xea;
    lop3.b32 sign, $2, 0x00800080, offset, 0xea;
    fma.rn.bf16x2 $0, sign, minus_one, low;
    prmt.b32 odd, $2, 0, 0x4341;
    lop3.b32 low, odd, 0x007f007f, offset, 0xea;
    lop3.b32 sign, odd, 0x00800080, offset, 0xea;
    fma.rn.bf16x2 $1, sign, minus_one, low;
}""")

FP8_FLOAT16_SM89_ASM = tl.constexpr("""{
    .reg .b32 sorted;
    .reg .b16 even, odd;
    prmt.b32 sorted, $2, 0, 0x3120;
    mov.b32 {even, odd}, sorted;
    cvt.rn.f16x2.e4m3x2 $0, even;
    cvt.rn.f16x2.e4m3x2 $1, odd;
}""")

# Exponent and mantissa move to the places of float16's, whose bias is 8 more, so 2^8 is due.
FP8_FLOAT16_ASM = tl.constexpr("""{
    .reg .b32 sign, size, factor;
    mov.b32 factor, 0x5c005c00;
    shl.b32 sign, $2, 8;
    shl.b32 size, $2, 7;
    and.b32 size, size, 0x3f803f80;
    lop3.b32 size, sign, 0x80008000, size, 0xea;
    mul.rn.f16x2 $0, size, factor;
    shr.u32 size, $2, 1;
    and.b32 size, size, 0x3f803f80;
    lop3.b32 size, $2, 0x80008000, size, 0xea;
    mul.rn.f16x2 $1, size, factor;
}""")

# The same with a bias that is 120 more. Older architectures have no mul, but fma, with -0.
FP8_BFLOAT16_ASM = tl.constexpr("""{
    .reg .b32 sign, size, factor, nothing;
    mov.b32 factor, 0x7b807b80;
    mov.b32 nothing, 0x80008000;
    shl.b32 sign, $2, 8;
    shl.b32 size, $2, 4;
    and.b32 size, size, 0x07f007f0;
    lop3.b32 size, sign, 0x80008000, size, 0xea;
    fma.rn.bf16x2 $0, size, factor, nothing;
    shr.u32 size, $2, 4;
    and.b32 size, size, 0x07f007f0;
    lop3.b32 size, $2, 0x80008000, size, 0xea;
    fma.rn.bf16x2 $1, size, factor, nothing;
}""")


@triton.jit
def widen(words, STORAGE: tl.constexpr, CONVERT: tl.constexpr, dtype: tl.constexpr):
    """The low and the high bytes of int16 words, "int8" or "fp8" (float8_e4m3fn), as numbers of dtype.

    CONVERT is 0 for plain Triton; for 16-bit dtypes also 80 or 89, NVIDIA's assembly of that or a later architecture.
    """
    if CONVERT == 0:
        return _byte(words, STORAGE, dtype), _byte(words >> 8, STORAGE, dtype)
    elif dtype == tl.bfloat16:
        text: tl.constexpr = INT8_BFLOAT16_ASM if STORAGE == "int8" else FP8_BFLOAT16_ASM
        return tl.inline_asm_elementwise(
            text, "=&r,=&r,r", [words], (tl.bfloat16, tl.bfloat16), is_pure=True, pack=2
        )
    else:
        fp8_text: tl.constexpr = FP8_FLOAT16_SM89_ASM if CONVERT == 89 else FP8_FLOAT16_ASM
        text: tl.constexpr = INT8_FLOAT16_ASM if STORAGE == "int8" else fp8_text
        return tl.inline_asm_elementwise(
            text, "=&r,=&r,r", [words], (tl.float16, tl.float16), is_pure=True, pack=2
        )


@triton.jit
def _byte(words, STORAGE: tl.constexpr, dtype: tl.constexpr):
    """The low byte of int16 words as a number of dtype."""
    if STORAGE == "int8":
        return words.to(tl.int8).to(dtype)
    else:
        # In the places of float32's exponent and mantissa the number is 2^120 times too small.
        byte = words.to(tl.int32)
        bits = ((byte & 0x80) << 24) | ((byte & 0x7F) << 20)
        return (bits.to(tl.float32, bitcast=True) * 2.0**120).to(dtype)
