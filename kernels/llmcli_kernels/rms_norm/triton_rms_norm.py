"""Triton: RMS norm of one row a program, alone or after adding a linear layer's output to the residual stream.

It rounds where the operation's definition does, and divides and takes roots exactly, so all that can differ from the
reference is the order in which squares, and summands, are added. Source: Zhang and Sennrich (arXiv 1910.07467).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmcli_kernels.activations import Partials
from llmcli_kernels.aot import AotVariant
from llmcli_kernels.triton_activations import added_up

ELEMENTS_PER_WARP = 256
MAX_WARPS = 16


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    heads = x if x.dim() == 3 else x.unsqueeze(1)
    _launch(heads.unsqueeze(0), None, weight, eps, y)
    return y


def add_rms_norm(x: Tensor | Partials, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    if isinstance(x, Partials):
        parts = x.parts
    else:
        parts = (x if x.stride(-1) == 1 else x.contiguous()).unsqueeze(0)
    y = torch.empty(residual.shape, dtype=residual.dtype, device=residual.device)
    _launch(parts.unsqueeze(2), residual, weight, eps, y)
    return y


def _launch(parts: Tensor, residual: Tensor | None, weight: Tensor, eps: float, y: Tensor) -> None:
    """Fill y with the norm of parts [S, T, H, D] added up, or of the residual after adding that to it."""
    split, tokens, heads, width = parts.shape
    block = triton.next_power_of_2(width)
    _rms_norm_kernel[(tokens * heads,)](
        parts,
        *parts.stride()[:3],
        residual,
        0 if residual is None else residual.stride(0),
        weight,
        float(eps),
        y,
        SPLIT=split,
        HEADS=heads,
        D=width,
        BLOCK=block,
        num_warps=_num_warps(block),
    )


def _num_warps(block: int) -> int:
    return min(max(block // ELEMENTS_PER_WARP, 1), MAX_WARPS)


@triton.jit
def _rms_norm_kernel(
    parts_ptr,
    stride_part,
    stride_token,
    stride_head,
    residual_ptr,
    stride_residual,
    weight_ptr,
    eps,
    y_ptr,
    SPLIT: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Row pid of T · HEADS rows.

    parts [SPLIT, T, HEADS, D] float32, or of y's dtype when SPLIT is 1; residual [T, D] (HEADS is 1) or None; weight
    [D]; y [T, HEADS, D] contiguous; D <= BLOCK.
    """
    row = tl.program_id(0).to(tl.int64)
    token = row // HEADS
    element = tl.arange(0, BLOCK)
    inside = element < D
    dtype: tl.constexpr = y_ptr.dtype.element_ty

    start = parts_ptr + token * stride_token + (row % HEADS) * stride_head
    x = added_up(start + element, inside, stride_part, SPLIT, dtype)
    if residual_ptr is not None:
        at = residual_ptr + token * stride_residual + element
        x = (x + tl.load(at, mask=inside, other=0.0).to(tl.float32)).to(dtype)
        tl.store(at, x, mask=inside)
        x = x.to(tl.float32)

    squares = tl.sum(x * x, axis=0)
    if dtype == tl.float32:
        inverse = tl.div_rn(1.0, tl.sqrt_rn(tl.div_rn(squares, D * 1.0) + eps))
    else:
        inverse = tl.rsqrt(squares * (1.0 / D) + eps)
    normed = (x * inverse).to(dtype)
    weight = tl.load(weight_ptr + element, mask=inside, other=0.0).to(tl.float32)
    y = (normed.to(tl.float32) * weight).to(dtype)
    tl.store(y_ptr + row * D + element, y, mask=inside)


def aot_variants(capability: tuple[int, int], table: object) -> list[AotVariant]:
    """With and without summands in both 16-bit dtypes, heads, and the widest row; tiles are not in the table."""
    found = []
    for dtype in ("fp16", "bf16"):
        found.append(_variant(dtype, width=4096, split=8, residual=True))
        found.append(_variant(dtype, width=5120, split=1, residual=True))
        found.append(_variant(dtype, width=16384, split=4, residual=True))
        found.append(_variant(dtype, width=128, split=1, residual=False, heads=8))
    return found


def _variant(dtype: str, width: int, split: int, residual: bool, heads: int = 1) -> AotVariant:
    block = triton.next_power_of_2(width)
    signature = {
        "parts_ptr": f"*{dtype}" if split == 1 else "*fp32",
        "stride_part": "i32",
        "stride_token": "i32",
        "stride_head": "i32",
        "stride_residual": "i32",
        "weight_ptr": f"*{dtype}",
        "eps": "fp32",
        "y_ptr": f"*{dtype}",
    }
    constants: dict[str, Any] = {"SPLIT": split, "HEADS": heads, "D": width, "BLOCK": block}
    if residual:
        signature["residual_ptr"] = f"*{dtype}"
    else:
        constants["residual_ptr"] = None
    return AotVariant(
        kernel=_rms_norm_kernel,
        name=f"rms_norm {dtype}, {heads} x {width}, {split} summands, residual {residual}",
        signature=signature,
        constants=constants,
        not_divisible=(),
        num_warps=_num_warps(block),
        num_stages=1,
    )
