"""How far a kernel may be from the reference: one table of relative errors per operation and dtype.

The error is the largest absolute difference over the largest absolute expected value. Every bound is at most
twice what was measured over the shapes of the tests, or one rounding step of the dtype where that is more;
tighten it when a kernel improves, never widen it.
"""

import torch
from torch import Tensor

ONE_STEP = {torch.float32: 2**-23, torch.bfloat16: 2**-7, torch.float16: 2**-10}

RELATIVE_ERROR = {
    "rms_norm": ONE_STEP,
    # The squares are added in another order than torch adds them.
    "rms_norm_triton": ONE_STEP | {torch.float32: 2.5e-7},
    "rms_norm_native": ONE_STEP | {torch.float32: 2.5e-7},
    "rope_kv_write": ONE_STEP,
    "rope_kv_write_norm": ONE_STEP | {torch.float32: 2.5e-7},
    "silu_mul": ONE_STEP | {torch.float32: 2.0e-7},
    # Not of the result: how far a token's place in the sum of all weights may be off, as a share of that sum.
    "sampling": {torch.float32: 2.5e-7},
    "paged_attention": ONE_STEP | {torch.float32: 1.5e-6},
    # bfloat16: scales and zero points are rounded to bfloat16, as torch's operator wants them.
    "int4_linear": ONE_STEP | {torch.float32: 1.1e-6, torch.bfloat16: 1.2e-2},
    "int4_linear_triton": ONE_STEP | {torch.float32: 7.6e-7},
    # Sums in float32, before they are rounded.
    "int4_skinny_subnormal": {torch.float32: 2.6e-7},
    "int4_skinny_float16": {torch.float32: 2.2e-5},
    "int4_skinny_bfloat16": {torch.float32: 3.0e-6},
    "int4_skinny_cut_off": {torch.float32: 2.1e-7, torch.float16: ONE_STEP[torch.float16]},
    # Against weights rounded once.
    "int4_wide": {torch.float32: 5.6e-7},
    # Activations rounded to int8 in groups of 128 k, but for a few outliers (README.md of the operation).
    "int4_linear_int8": {torch.bfloat16: 1.2e-2},
    "int4_linear_int8_outliers": {torch.bfloat16: 2.5e-2},
    "int8_linear": {torch.float32: 2.0e-6},
    "int8_linear_bf16": {torch.float32: 5.0e-3},
    "int8_linear_int8": {torch.float32: 1.2e-2},
    "int4_linear_int8_exact": {torch.bfloat16: ONE_STEP[torch.bfloat16]},
}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    difference = (actual.double() - expected.double()).abs().max().item()
    return difference / expected.double().abs().max().item()


def assert_close(operation: str, actual: Tensor, expected: Tensor) -> None:
    """Same shape and dtype, finite, and within the bound of the table."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    bound = RELATIVE_ERROR[operation][actual.dtype]
    error = relative_error(actual, expected)
    assert error <= bound, f"{operation} {actual.dtype}: relative error {error:.2e}, bound {bound:.2e}"
