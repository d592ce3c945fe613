"""The kernels between the large ones, against the memory's bandwidth.

Owns the cases: of few rows, where the launch is what counts, with a linear layer's partial sums to add up; of many,
where bandwidth counts.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from llmcli_kernels import KernelSet, select
from llmcli_kernels.activations import Partials
from scripts.gpu_bench.session import Row, Session
from scripts.gpu_bench.shapes import BLOCK, DRY_HEADS, LLAMA3, Heads, random_cache
from scripts.gpu_bench.targets import BANDWIDTH
from scripts.gpu_bench.timing import measure, rotation

ROWS = (1, 16, 64, 512, 4096)
SPLIT = 8  # summands of a linear layer's output of few rows
FEW_ROWS = 32
EPS = 1e-5
Make = Callable[
    [], tuple[Callable[[], object], int]
]  # a call on memory of its own, and the bytes that it moves


def run(session: Session) -> None:
    kernels = select("cuda", "triton")
    width, inner, heads = (256, 384, DRY_HEADS) if session.dry else (4096, 14336, LLAMA3)
    with torch.device(session.device), torch.inference_mode():
        for rows in (1, 33) if session.dry else ROWS:
            makes: dict[str, Make] = {
                "rms_norm": partial(_rms_norm, kernels, rows, width),
                "add_rms_norm": partial(_add_rms_norm, kernels, rows, width),
                "silu_mul": partial(_silu_mul, kernels, rows, inner),
                "rope_kv_write": partial(_rope_kv_write, kernels, rows, heads),
            }
            for name, make in makes.items():
                session.case(f"{name} M={rows}", partial(_case, session, name, rows, make))


def _case(session: Session, operation: str, rows: int, make: Make) -> Row:
    first, moved = make()
    calls = [first] + [make()[0] for _ in range(min(rotation(moved, session.dry), 64) - 1)]
    timing = measure(calls, session.dry)
    return {
        "kind": "benchmark",
        "operation": operation,
        "sizes": {"m": rows, "bytes": moved, "partial_sums": SPLIT if rows <= FEW_ROWS else 0},
        "time": timing.as_row(),
        "figures": {BANDWIDTH: moved / (timing.median_us / 1e6) / session.ceilings.read},
    }


def _linear_output(rows: int, width: int) -> tuple[Tensor | Partials, int]:
    """What a linear layer hands on, and its bytes."""
    if rows > FEW_ROWS:
        x = torch.randn(rows, width).half()
        return x, x.nbytes
    parts = torch.randn(SPLIT, rows, width)
    return Partials(parts, torch.float16), parts.nbytes


def _rms_norm(kernels: KernelSet, rows: int, width: int) -> tuple[Callable[[], object], int]:
    x, weight = torch.randn(rows, width).half(), torch.ones(width).half()
    return partial(kernels.rms_norm, x, weight, EPS), 2 * x.nbytes


def _add_rms_norm(kernels: KernelSet, rows: int, width: int) -> tuple[Callable[[], object], int]:
    x, read = _linear_output(rows, width)
    residual, weight = torch.zeros(rows, width).half(), torch.ones(width).half()
    return partial(kernels.add_rms_norm, x, residual, weight, EPS), read + 3 * residual.nbytes


def _silu_mul(kernels: KernelSet, rows: int, inner: int) -> tuple[Callable[[], object], int]:
    x, read = _linear_output(rows, 2 * inner)
    return partial(kernels.silu_mul, x), read + 2 * rows * inner


def _rope_kv_write(kernels: KernelSet, rows: int, heads: Heads) -> tuple[Callable[[], object], int]:
    width = (heads.q + 2 * heads.kv) * heads.size
    qkv, read = _linear_output(rows, width)
    kv = random_cache(-(-rows // BLOCK), heads, torch.float16)
    positions, slots = torch.arange(rows), torch.randperm(rows)
    cos_sin = torch.rand(rows, heads.size)
    call = partial(kernels.rope_kv_write, qkv, positions, slots, cos_sin, kv, heads.q, None)
    return call, read + 2 * rows * width
