"""RMS normalisation (Zhang and Sennrich, 2019), alone or after adding to the residual stream.

Owns the shared argument checks. Does not know who implements it; `kernel_set` calls the checks, then the
implementation.

    rms_norm(x, weight, eps) -> y
        x [..., D] (two or three dimensions, the last one contiguous), weight [D], both of one floating
        dtype; y is new, contiguous and of x's shape and dtype. Computed in float32, rounded to x.dtype, then
        multiplied by the weight: the order of transformers' LlamaRMSNorm.
    add_rms_norm(x, residual, weight, eps) -> y
        residual += x in place (x [T, D], residual [T, D]), then rms_norm of the new residual.
"""

from torch import Tensor


def check_rms_norm(x: Tensor, weight: Tensor, eps: float) -> None:
    """Raise a ValueError that names the numbers when the arguments do not fit together."""
    if x.dim() not in (2, 3) or weight.shape != x.shape[-1:]:
        raise ValueError(
            f"rms_norm: x {list(x.shape)} needs 2 or 3 dimensions and a weight"
            f" of its last, got {list(weight.shape)}"
        )
    if x.dtype != weight.dtype or not x.is_floating_point():
        raise ValueError(f"rms_norm: x is {x.dtype}, weight is {weight.dtype}; one floating dtype is needed")
    if x.stride(-1) != 1:
        raise ValueError(
            f"rms_norm: the last dimension of x must be contiguous, its stride is {x.stride(-1)}"
        )
    if eps < 0:
        raise ValueError(f"rms_norm: eps must not be negative, got {eps}")


def check_add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> None:
    """As check_rms_norm for the residual, and x must have its shape and dtype."""
    if x.shape != residual.shape or x.dtype != residual.dtype:
        raise ValueError(
            f"add_rms_norm: x {list(x.shape)} {x.dtype} and residual {list(residual.shape)}"
            f" {residual.dtype} must be alike"
        )
    check_rms_norm(residual, weight, eps)
