"""Reading `Partials` in Triton kernels: how summands become a number, once for all that follow a linear layer."""

import triton
import triton.language as tl


@triton.jit
def added_up(at, mask, stride_part, SPLIT: tl.constexpr, dtype: tl.constexpr):
    """The sum of SPLIT summands in index order, rounded once to dtype; float32. A tensor has SPLIT 1."""
    total = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    for part in tl.static_range(1, SPLIT):
        total += tl.load(at + part * stride_part, mask=mask, other=0.0)
    return total.to(dtype).to(tl.float32)
