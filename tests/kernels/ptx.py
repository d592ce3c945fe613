"""Runs the PTX of inline assembly on arrays, as far as the kernels use it: what only a GPU executes is checked here.

Every register is 32 bits; `.f16x2` and `.bf16x2` compute on its halves, exactly and then rounded once to nearest.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import torch

Words = np.ndarray  # of uint32
LINE = re.compile(r"(\S+)\s+(.*)")


def run(text: str, inputs: Sequence[Words], num_outputs: int) -> list[Words]:
    """The outputs $0 ... of a block of assembly whose inputs follow them.

    Raises:
        KeyError: an instruction or an operand that is not known here.
    """
    registers = {f"${num_outputs + index}": value.astype(np.uint32) for index, value in enumerate(inputs)}

    def read(operand: str) -> Words:
        return np.full_like(inputs[0], int(operand, 0)) if operand[0].isdigit() else registers[operand]

    for statement in text.strip().strip("{}").split(";"):
        parsed = LINE.match(statement.strip())
        if parsed is None or parsed[1] == ".reg":
            continue
        target, *operands = (operand.strip() for operand in parsed[2].split(","))
        registers[target] = INSTRUCTIONS[parsed[1]](*map(read, operands))
    return [registers[f"${index}"] for index in range(num_outputs)]


def halves(words: Words, dtype: torch.dtype) -> list[torch.Tensor]:
    """The two numbers in each word, the lower half first; float64."""
    return [
        torch.from_numpy(half.astype(np.uint16).view(np.int16)).view(dtype).double()
        for half in (words & 0xFFFF, words >> 16)
    ]


def words_of(low: torch.Tensor, high: torch.Tensor) -> Words:
    """Two 16-bit numbers in each word."""
    bits = [half.view(torch.int16).numpy().view(np.uint16).astype(np.uint32) for half in (low, high)]
    return bits[0] | bits[1] << 16


def _lop3(a: Words, b: Words, c: Words, table: Words) -> Words:
    """Bit 4a + 2b + c of the table is the result for the bits a, b, c."""
    result = np.zeros_like(a)
    for row in range(8):
        if int(table.flat[0]) >> row & 1:
            result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
    return result


def _prmt(a: Words, b: Words, selector: Words) -> Words:
    """Byte i is the one that nibble i of the selector numbers: 0 to 3 of a, 4 to 7 of b."""
    source = [(word >> (8 * byte)) & 0xFF for word in (a, b) for byte in range(4)]
    picked = [(int(selector.flat[0]) >> (4 * byte)) & 0xF for byte in range(4)]
    return sum(source[number] << (8 * byte) for byte, number in enumerate(picked)).astype(np.uint32)


def _from_e4m3x2(a: Words) -> Words:
    """Two float8_e4m3fn as two float16."""
    numbers = [
        torch.from_numpy((a >> shift & 0xFF).astype(np.uint8)).view(torch.float8_e4m3fn) for shift in (0, 8)
    ]
    return words_of(*(number.to(torch.float16) for number in numbers))


def _on_halves(compute: Callable[..., torch.Tensor], dtype: torch.dtype) -> Callable[..., Words]:
    def instruction(*operands: Words) -> Words:
        pairs = zip(*(halves(operand, dtype) for operand in operands), strict=True)
        return words_of(*(compute(*numbers).to(dtype) for numbers in pairs))

    return instruction


INSTRUCTIONS: dict[str, Callable[..., Words]] = {
    "mov.b32": lambda a: a,
    "and.b32": lambda a, b: a & b,
    "xor.b32": lambda a, b: a ^ b,
    "shr.u32": lambda a, b: a >> b,
    "shl.b32": lambda a, b: a << b,
    "prmt.b32": _prmt,
    "cvt.u16.u32": lambda a: a & 0xFFFF,
    "cvt.rn.f16x2.e4m3x2": _from_e4m3x2,
    "lop3.b32": _lop3,
    "add.rn.f16x2": _on_halves(lambda a, b: a + b, torch.float16),
    "mul.rn.f16x2": _on_halves(lambda a, b: a * b, torch.float16),
    "fma.rn.f16x2": _on_halves(lambda a, b, c: a * b + c, torch.float16),
    "fma.rn.bf16x2": _on_halves(lambda a, b, c: a * b + c, torch.bfloat16),
}
