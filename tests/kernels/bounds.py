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
    "rope": ONE_STEP,
    "silu_mul": ONE_STEP | {torch.float32: 2.0e-7},
    "paged_attention": ONE_STEP | {torch.float32: 1.5e-6},
    # bfloat16: scales and zero points are rounded to bfloat16, as torch's operator wants them.
    "int4_linear": ONE_STEP | {torch.float32: 1.1e-6, torch.bfloat16: 1.2e-2},
    # Activations rounded to int8 in groups of 64 k (README.md of the operation).
    "int4_linear_int8": {torch.bfloat16: 1.2e-2},
    "int4_linear_int8_outliers": {torch.bfloat16: 2.5e-2},
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
