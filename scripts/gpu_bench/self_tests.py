"""What the kernels count on from a GPU's arithmetic, looked at before them.

A nibble in the low bits of a float16 is the subnormal number q · 2⁻²⁴, so unpacking can be a single AND where tensor
cores take subnormal operands exactly and at full speed. Torch's products on the same tensor cores show whether they
do; the int4 kernel decides by a small product of its own, and is timed with both ways to unpack.
"""

from dataclasses import asdict
from functools import partial

import torch

from llmcli_kernels.gpu import current_gpu
from llmcli_kernels.int4_linear.triton_linear import TritonInt4Linear, Unpack, unpack_for
from llmcli_kernels.tuning import load_table
from scripts.gpu_bench.session import Row, Session
from scripts.gpu_bench.shapes import layers, random_weight
from scripts.gpu_bench.timing import measure, rotation

STEP = 2.0**-24  # between neighbouring subnormal float16 numbers
SIZE = 4096
DRY_SIZE = 64


def run(session: Session) -> None:
    size = DRY_SIZE if session.dry else SIZE
    with torch.device(session.device), torch.inference_mode():
        session.case("float16 subnormals are multiplied exactly", partial(_exact, size))
        session.case("float16 subnormals are multiplied at full speed", partial(_speed, size, session.dry))
        session.case("how the int4 kernel unpacks here", _unpacking)
        for m in (1, 8, 16):
            session.case(f"int4 kernel with subnormals M={m}", partial(_both_ways, session, m))


def _exact(size: int) -> Row:
    """Small integers times signs: every sum is an exact float32, and its float16 is too when it is scaled back."""
    nibbles = torch.randint(0, 16, (size, 128))
    signs = torch.randint(0, 2, (128, size)) * 2 - 1
    product = (nibbles * STEP).half() @ (signs * 256).half()
    expected = (nibbles.float() @ signs.float()) * (256 * STEP)
    return {"kind": "check", "correct": torch.equal(product.float(), expected.half().float())}


def _speed(size: int, dry: bool) -> Row:
    """The same product with ordinary numbers and with subnormal ones."""
    nibbles = torch.randint(0, 16, (size, size))
    right = torch.randn(size, size).half()
    usual, subnormal = (
        measure([partial(torch.matmul, (nibbles * scale).half(), right)], dry) for scale in (1.0, STEP)
    )
    return {
        "kind": "benchmark",
        "operation": "subnormal_product",
        "sizes": {"size": size},
        "time": subnormal.as_row(),
        "figures": {"share of the speed of ordinary numbers": usual.median_us / subnormal.median_us},
    }


def _unpacking() -> Row:
    return {"kind": "note", **asdict(unpack_for(current_gpu()))}


def _both_ways(session: Session, m: int) -> Row:
    """The kernel for few rows, its weights unpacked as subnormal numbers and with an offset."""
    layer, gpu = layers(session.dry)[0], current_gpu()
    table = load_table(gpu.capability)
    ways = [TritonInt4Linear(table, gpu, Unpack(gpu.nvidia, subnormal)) for subnormal in (True, False)]
    copies = rotation(layer.n * layer.k // 2, session.dry)
    packed = [ways[0].pack_int4(random_weight(layer), torch.float16) for _ in range(copies)]
    x = torch.randn(m, layer.k).half()
    subnormal, offset = (
        measure([partial(way, x, weight, None) for weight in packed], session.dry) for way in ways
    )
    return {
        "kind": "benchmark",
        "operation": "int4_subnormal",
        "sizes": {"m": m, "n": layer.n, "k": layer.k},
        "time": subnormal.as_row(),
        "figures": {"x unpacking with an offset": offset.median_us / subnormal.median_us},
        "peers": {"with an offset": offset.as_row()},
    }
