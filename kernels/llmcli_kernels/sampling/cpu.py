"""Fast sampling on a CPU: one pass for greedy rows, and no more sorting than the filters of a row need.

Random rows are computed one at a time: the same numbers are added in the same order whatever the batch holds.
"""

import torch
from torch import Tensor

from llmcli_kernels.sampling import SamplingBatch

# top-p adds up weights in bins of (largest logit - logit) / temperature; the last bin takes the rest.
BINS_PER_UNIT = 256
NUM_BINS = 32 * BINS_PER_UNIT


def sample(logits: Tensor, params: SamplingBatch) -> tuple[Tensor, Tensor]:
    largest, ids = logits.max(dim=-1)
    finite = torch.isfinite(largest)
    ids.masked_fill_(~finite, 0)
    for row in (finite & (params.temperature != 0)).nonzero()[:, 0].tolist():
        ids[row] = _draw(logits[row], params, row)
    return ids, finite


def _draw(logits: Tensor, params: SamplingBatch, row: int) -> int:
    top_k, top_p, min_p = params.top_k[row].item(), params.top_p[row].item(), params.min_p[row].item()
    kept: Tensor | None = None
    scores = logits
    if 0 < top_k < logits.numel():
        kept = (logits >= logits.topk(int(top_k)).values[-1]).nonzero()[:, 0]
        scores = logits[kept]
    gaps = scores.to(torch.float64)
    gaps = gaps.sub_(gaps.max()).div_(params.temperature[row].item()).neg_()
    weights = torch.exp(-gaps)
    if top_p < 1:
        kept, weights = _narrow(kept, weights, _reaching(gaps, weights, top_p))
    if min_p > 0:
        kept, weights = _narrow(kept, weights, (weights >= min_p).nonzero()[:, 0])

    running = weights.cumsum(0)
    target = running[-1] * params.uniforms[row].to(torch.float64)
    chosen = int(torch.searchsorted(running, target, right=True))
    if chosen == running.numel():
        chosen = int(weights.nonzero()[-1])
    return chosen if kept is None else int(kept[chosen])


def _narrow(kept: Tensor | None, weights: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """The ids (None: all) and weights at some indices."""
    return (indices if kept is None else kept[indices]), weights[indices]


def _reaching(gaps: Tensor, weights: Tensor, top_p: float) -> Tensor:
    """Indices, ascending, of the tokens of the smallest set whose share of the weight reaches top_p.

    Only the bin in which the sum passes the goal is sorted, instead of the whole vocabulary.
    """
    bins = (gaps * BINS_PER_UNIT).clamp_(max=NUM_BINS - 1).to(torch.int64)
    passed = torch.bincount(bins, weights, NUM_BINS).cumsum(0)
    goal = top_p * passed[-1]
    edge = int(torch.searchsorted(passed, goal))
    inside = (bins == edge).nonzero()[:, 0]
    ordered, order = weights[inside].sort(descending=True, stable=True)
    before = ordered.cumsum(0) - ordered + (passed[edge - 1] if edge else 0.0)
    keep = before < goal
    keep[0] = True
    chosen = bins < edge
    chosen[inside[order[keep]]] = True
    return chosen.nonzero()[:, 0]
