"""Fast gated activation on a CPU: two passes, silu rounded to the dtype of x in between."""

import torch.nn.functional as F
from torch import Tensor


def silu_mul(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, dim=1)
    return F.silu(gate).mul_(up)
