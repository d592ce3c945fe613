"""Perplexity of a checkpoint on token ids, layer by layer: no more memory than a layer and the texts' activations.

The arithmetic is float32, whatever the checkpoint holds; 4-bit matrices are dequantised first. So a difference between
two checkpoints is that of their weights and of nothing else. Called by `jobs/quantize/job.py`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli.quantize.forward import advance, rms_norm
from llmcli.quantize.reader import NORM, LayerReader

ROWS = 256


@torch.inference_mode()
def perplexity(reader: LayerReader, texts: Tensor) -> float:
    """e to the mean negative log likelihood of each text's tokens but the first.

    Args:
        texts: [texts, tokens] int64, at least 2 tokens each.
    """
    hidden = reader.embed(texts)
    for index in range(reader.spec.num_layers):
        advance(hidden, reader.layer(index), reader.spec, index)
    norm = reader.finite(NORM).float()
    head = reader.tensor(reader.head_name()).to(reader.device, torch.float32)
    rows, targets = hidden[:, :-1].flatten(0, 1), texts[:, 1:].flatten()
    total = 0.0
    for chunk, wanted in zip(rows.split(ROWS), targets.split(ROWS), strict=True):
        normed = rms_norm(chunk, norm, reader.spec.rms_norm_eps).to(reader.device)
        total += float(F.cross_entropy(normed @ head.t(), wanted.to(reader.device), reduction="sum"))
    mean = total / len(targets)
    return math.exp(mean) if mean < 700 else math.inf
