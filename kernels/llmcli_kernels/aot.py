"""`AotVariant`: one kernel with everything a compiler needs to build it without a GPU.

Each module of Triton kernels lists its own in `aot_variants(capability, table)`; scripts/count_instructions
compiles them. Knows no kernel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AotVariant:
    """What to compile and what to measure.

    Attributes:
        kernel: a function decorated with triton.jit.
        name: says which kernel, dtype and tile, as a table shows it.
        signature: Triton type of every argument that is not a constant: "*fp16", "*i32", "i32", "fp32" ...
        constants: value of every tl.constexpr argument.
        not_divisible: arguments that need not be multiples of 16, as the others and all pointers are.
        unit: what the inner loop works on: "weight", "KV byte", or None where no figure is kept.
        work: how many units one trip of the inner loop handles in one program.
    """

    kernel: Any
    name: str
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    not_divisible: tuple[str, ...]
    num_warps: int
    num_stages: int
    unit: str | None = None
    work: int = 1
