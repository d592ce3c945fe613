"""Sampling from a large vocabulary, beside a sort as torch alone would do it.

Owns the cases. The logits stay where the matrix product before them leaves them, in the L2 cache as far as they fit,
so nothing is rotated.
"""

from functools import partial

import torch
from torch import Tensor

from llmcli_kernels import KernelSet, SamplingBatch, select
from scripts.gpu_bench.session import Row, Session
from scripts.gpu_bench.targets import TIME_US, VS_SORT
from scripts.gpu_bench.timing import measure

VOCABULARY = 128256
BATCHES = (1, 8, 64)
# temperature, top_k, top_p, min_p
MODES = {
    "greedy": (0.0, 0, 1.0, 0.0),
    "temperature": (0.8, 0, 1.0, 0.0),
    "top-k 50": (0.8, 50, 1.0, 0.0),
    "top-p 0.9": (0.8, 0, 0.9, 0.0),
    "top-k 50, top-p 0.9, min-p 0.02": (0.8, 50, 0.9, 0.02),
}


def run(session: Session) -> None:
    kernels = select("cuda", "triton")
    vocabulary = 300 if session.dry else VOCABULARY
    with torch.device(session.device), torch.inference_mode():
        for batch in (2,) if session.dry else BATCHES:
            for mode in MODES:
                name = f"sampling batch {batch} {mode}"
                session.case(name, partial(_case, session, kernels, batch, vocabulary, mode))


def _case(session: Session, kernels: KernelSet, batch: int, vocabulary: int, mode: str) -> Row:
    temperature, top_k, top_p, min_p = MODES[mode]
    logits = torch.randn(batch, vocabulary) * 3
    params = SamplingBatch(
        temperature=torch.full((batch,), temperature),
        top_k=torch.full((batch,), top_k),
        top_p=torch.full((batch,), top_p),
        min_p=torch.full((batch,), min_p),
        uniforms=torch.rand(batch, dtype=torch.float64),
    )
    timing = measure([partial(kernels.sample, logits, params)], session.dry)
    figures = {TIME_US: timing.median_us}
    filtered = top_k > 0 or top_p < 1
    peers = {}
    if filtered:
        peer = measure([partial(sorted_sample, logits, params)], session.dry)
        peers["torch sort"] = peer.as_row()
        figures[VS_SORT] = peer.median_us / timing.median_us
    return {
        "kind": "benchmark",
        "operation": "sampling",
        "sizes": {"batch": batch, "vocabulary": vocabulary, "filtered": int(filtered)},
        "time": timing.as_row(),
        "figures": figures,
        "peers": peers,
    }


def sorted_sample(logits: Tensor, params: SamplingBatch) -> Tensor:
    """top-k, top-p and min-p over a descending sort, then the inverse of the distribution function."""
    ordered, ids = logits.sort(dim=-1, descending=True)
    weights = torch.softmax(ordered / params.temperature.unsqueeze(1), dim=-1)
    rank = torch.arange(logits.shape[1], device=logits.device)
    limit = torch.where(params.top_k > 0, params.top_k, logits.shape[1])
    weights = weights.masked_fill(rank >= limit.unsqueeze(1), 0.0)
    before = weights.cumsum(-1) - weights
    weights = weights.masked_fill(before >= params.top_p.unsqueeze(1) * weights.sum(-1, keepdim=True), 0.0)
    weights = weights.masked_fill(weights < params.min_p.unsqueeze(1) * weights[:, :1], 0.0)
    running = weights.cumsum(-1)
    target = params.uniforms.to(torch.float32).unsqueeze(1) * running[:, -1:]
    return ids.gather(1, torch.searchsorted(running, target, right=True).clamp(max=logits.shape[1] - 1))
