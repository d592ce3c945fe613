"""The gated activation of Llama-like MLPs (SwiGLU; Shazeer, 2020) on the merged gate and up projections.

Owns the shared argument checks.

    silu_mul(x) -> y
        x [T, 2I] contiguous rows: gate first, then up. y [T, I] = gate * sigmoid(gate) * up in x.dtype; the
        product of silu and up is formed in float32 or after silu was rounded to x.dtype, as the
        implementation prefers.
"""

from torch import Tensor


def check_silu_mul(x: Tensor) -> None:
    """Raise a ValueError that names the numbers when x has another shape or dtype."""
    if x.dim() != 2 or x.shape[1] % 2 or not x.is_floating_point():
        raise ValueError(f"silu_mul: x must be floating [T, 2I], got {x.dtype} {list(x.shape)}")
    if x.stride(1) != 1:
        raise ValueError(f"silu_mul: rows of x must be contiguous, the stride is {x.stride(1)}")
