"""Plain PyTorch sampling, row by row in float64: the truth that faster kernels are compared with."""

import torch
from torch import Tensor

from llmcli_kernels.sampling import SamplingBatch


def sample(logits: Tensor, params: SamplingBatch) -> tuple[Tensor, Tensor]:
    finite = torch.isfinite(logits.amax(dim=-1))
    ids = torch.zeros(logits.shape[0], dtype=torch.int64, device=logits.device)
    for row in range(logits.shape[0]):
        if not finite[row]:
            continue
        if params.temperature[row] == 0:
            ids[row] = (logits[row] == logits[row].max()).nonzero()[0, 0]
            continue
        ids[row] = _draw(logits[row], params, row)
    return ids, finite


def _draw(logits: Tensor, params: SamplingBatch, row: int) -> Tensor:
    wide = logits.to(torch.float64)
    weights = torch.exp((wide - wide.max()) / params.temperature[row].to(torch.float64))

    top_k = int(params.top_k[row])
    if 0 < top_k < logits.numel():
        kth = logits.sort(descending=True).values[top_k - 1]
        weights = torch.where(logits >= kth, weights, 0.0)

    top_p = params.top_p[row].to(torch.float64)
    if top_p < 1:
        order = weights.sort(descending=True, stable=True).indices
        ordered = weights[order]
        before = ordered.cumsum(0) - ordered
        drop = before >= top_p * ordered.sum()
        drop[0] = False
        weights = weights.clone()
        weights[order[drop]] = 0.0

    weights = torch.where(weights >= params.min_p[row].to(torch.float64) * weights.max(), weights, 0.0)
    running = weights.cumsum(0)
    target = params.uniforms[row].to(torch.float64) * running[-1]
    kept = weights.nonzero()[:, 0]
    chosen = torch.searchsorted(running[kept], target, right=True).clamp(max=kept.numel() - 1)
    return kept[chosen]
