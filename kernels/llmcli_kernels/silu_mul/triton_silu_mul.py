"""Triton: the gated activation of one piece of a row a program, of a tensor or of a linear layer's summands.

Computed in float32 and rounded once. Source: SwiGLU, Shazeer (arXiv 2002.05202).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmcli_kernels.activations import Partials
from llmcli_kernels.aot import AotVariant
from llmcli_kernels.triton_activations import added_up

ELEMENTS_PER_WARP = 256
FEW_ROWS = 32
FEW_ROWS_WARPS, MANY_ROWS_WARPS = 1, 4  # short pieces make enough programs of one row


def silu_mul(x: Tensor | Partials) -> Tensor:
    parts = x.parts if isinstance(x, Partials) else x.unsqueeze(0)
    split, rows, width = parts.shape[0], parts.shape[1], parts.shape[2] // 2
    y = torch.empty(rows, width, dtype=x.dtype, device=parts.device)
    num_warps = FEW_ROWS_WARPS if rows <= FEW_ROWS else MANY_ROWS_WARPS
    block = num_warps * ELEMENTS_PER_WARP
    _silu_mul_kernel[(rows, triton.cdiv(width, block))](
        parts,
        parts.stride(0),
        parts.stride(1),
        y,
        width,
        SPLIT=split,
        BLOCK=block,
        num_warps=num_warps,
    )
    return y


@triton.jit
def _silu_mul_kernel(
    parts_ptr,
    stride_part,
    stride_row,
    y_ptr,
    width,
    SPLIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Elements pid 1 · BLOCK and following of row pid 0.

    parts [SPLIT, T, 2 · width] float32, or of y's dtype when SPLIT is 1; y [T, width] contiguous.
    """
    row = tl.program_id(0).to(tl.int64)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = element < width
    dtype: tl.constexpr = y_ptr.dtype.element_ty

    at = parts_ptr + row * stride_row + element
    gate = added_up(at, inside, stride_part, SPLIT, dtype)
    up = added_up(at + width, inside, stride_part, SPLIT, dtype)
    small = tl.exp(-tl.abs(gate))
    scaled = gate * tl.where(gate >= 0.0, 1.0, small)
    if dtype == tl.float32:
        silu = tl.div_rn(scaled, 1.0 + small)
    else:
        silu = scaled / (1.0 + small)
    y = (silu * up).to(dtype)
    tl.store(y_ptr + row * width + element, y, mask=inside)


def aot_variants(capability: tuple[int, int], table: object) -> list[AotVariant]:
    """Few and many rows, with and without summands, in both 16-bit dtypes; tiles are not in the table."""
    cases = [(1, FEW_ROWS_WARPS), (8, FEW_ROWS_WARPS), (1, MANY_ROWS_WARPS)]
    return [_variant(dtype, *case) for dtype in ("fp16", "bf16") for case in cases]


def _variant(dtype: str, split: int, num_warps: int) -> AotVariant:
    signature = {
        "parts_ptr": f"*{dtype}" if split == 1 else "*fp32",
        "stride_part": "i32",
        "stride_row": "i32",
        "y_ptr": f"*{dtype}",
        "width": "i32",
    }
    return AotVariant(
        kernel=_silu_mul_kernel,
        name=f"silu_mul {dtype}, {split} summands, {num_warps} warps",
        signature=signature,
        constants={"SPLIT": split, "BLOCK": num_warps * ELEMENTS_PER_WARP},
        not_divisible=(),
        num_warps=num_warps,
        num_stages=1,
    )
