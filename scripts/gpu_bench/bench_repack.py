"""From the plain form of int4 weights to that of the kernels, against the time in which they reach the GPU."""

from functools import partial

import torch

from llmcli_kernels import KernelSet, select
from scripts.gpu_bench.session import Row, Session
from scripts.gpu_bench.shapes import Layer, layers, random_weight
from scripts.gpu_bench.targets import OF_LOADING
from scripts.gpu_bench.timing import measure


def run(session: Session) -> None:
    kernels = select("cuda", "triton")
    with torch.device(session.device), torch.inference_mode():
        for layer in layers(session.dry):
            session.case(f"repack {layer}", partial(_case, session, kernels, layer))


def _case(session: Session, kernels: KernelSet, layer: Layer) -> Row:
    """Loading is more than the copy from pageable memory that is taken for it: a file is read too."""
    weight = random_weight(layer)
    on_host = weight.q.cpu()
    timing = measure([partial(kernels.pack_int4, weight, torch.float16)], session.dry)
    copying = measure([lambda: weight.q.copy_(on_host)], session.dry, graph=False)
    return {
        "kind": "benchmark",
        "operation": "repack",
        "sizes": {"n": layer.n, "k": layer.k, "weight_bytes": weight.nbytes},
        "time": timing.as_row(),
        "figures": {OF_LOADING: timing.median_us / copying.median_us},
        "copy_to_gpu_us": copying.median_us,
    }
