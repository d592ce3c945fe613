"""Makes Triton's interpreter compute bfloat16 and 8-bit floats as a GPU does.

The interpreter (seen in 3.9.0) keeps bfloat16 as uint16 and, without a word, adds, compares and multiplies those
integers, rounds conversions up or down instead of to the nearest, and loses carries into the exponent of float8.
Here every such operation widens to float32, computes, and rounds to nearest even through torch.
"""

from collections.abc import Callable

import numpy as np
import torch
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

NARROW = {tl.bfloat16: torch.bfloat16, tl.float8e4nv: torch.float8_e4m3fn, tl.float8e5: torch.float8_e5m2}


def mend() -> None:
    """Replace the interpreter's operations; call once a process, before any kernel runs."""
    builder = InterpreterBuilder
    for name in ("binary_op", "unary_op", "create_fma", "create_dot"):
        setattr(builder, name, _in_float32(getattr(builder, name)))
    plain_cast, plain_fp_to_fp = builder.cast_impl, builder.create_fp_to_fp

    def cast(self: InterpreterBuilder, source: TensorHandle, target: tl.dtype) -> TensorHandle:
        if _is_narrow(source) or target.scalar in NARROW:
            return _narrow(_wide(source), target.scalar)
        return plain_cast(self, source, target)

    def fp_to_fp(
        self: InterpreterBuilder, source: TensorHandle, target: tl.dtype, rounding: object
    ) -> TensorHandle:
        if _is_narrow(source) or target.scalar in NARROW:
            return _narrow(_wide(source), target.scalar)
        return plain_fp_to_fp(self, source, target, rounding)

    builder.cast_impl, builder.create_fp_to_fp = cast, fp_to_fp


def _in_float32(plain: Callable[..., TensorHandle]) -> Callable[..., TensorHandle]:
    """An operation whose result has the type of its last narrow operand; comparisons give bool as they are."""

    def operation(self: InterpreterBuilder, *operands: object) -> TensorHandle:
        narrow = [o.dtype.scalar for o in operands if isinstance(o, TensorHandle) and _is_narrow(o)]
        if not narrow:
            return plain(self, *operands)
        wide = [_wide(o) if isinstance(o, TensorHandle) and _is_narrow(o) else o for o in operands]
        result = plain(self, *wide)
        into = operands[2].dtype.scalar if plain.__name__ == "create_dot" else narrow[-1]
        return result if result.data.dtype == np.bool_ or into not in NARROW else _narrow(result, into)

    return operation


def _is_narrow(handle: TensorHandle) -> bool:
    return handle.dtype.scalar in NARROW


def _wide(handle: TensorHandle) -> TensorHandle:
    """The same numbers as float32."""
    data = np.ascontiguousarray(handle.data)
    if not _is_narrow(handle):
        return TensorHandle(data.astype(np.float32), tl.float32)
    signed = data.view(np.int16 if data.itemsize == 2 else np.int8)
    numbers = torch.from_numpy(signed).view(NARROW[handle.dtype.scalar]).to(torch.float32)
    return TensorHandle(numbers.numpy().reshape(handle.data.shape), tl.float32)


def _narrow(handle: TensorHandle, target: tl.dtype) -> TensorHandle:
    """float32 rounded once to another type."""
    if target not in NARROW:
        dtypes = {tl.float16: np.float16, tl.float64: np.float64, tl.float32: np.float32}
        if target in dtypes:
            return TensorHandle(handle.data.astype(dtypes[target]), target)
        return TensorHandle(handle.data.astype(np.dtype(target.name)), target)
    bits = torch.from_numpy(np.ascontiguousarray(handle.data, dtype=np.float32)).to(NARROW[target])
    unsigned = np.uint16 if target == tl.bfloat16 else np.uint8
    signed = bits.view(torch.int16 if target == tl.bfloat16 else torch.int8).numpy()
    return TensorHandle(signed.view(unsigned).reshape(handle.data.shape), target)
