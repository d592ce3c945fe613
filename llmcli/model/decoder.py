"""The decoder: one forward pass for every family that differs only in the flags of `ModelSpec`.

Pre-norm transformer with rotary embeddings, grouped-query attention over the paged cache and a gated MLP
(Llama, arXiv 2302.13971). All state comes in as arguments; the arithmetic is the kernel set's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli.model.forward_batch import ForwardBatch, KVCache
from llmcli.model.spec import ModelSpec
from llmcli.model.weights import DecoderWeights, LayerWeights
from llmcli_kernels import KernelSet


class Decoder:
    """A model ready to run.

    Args:
        cos_sin: [max positions, head_dim] float32, see `model/rope.py`.
    """

    def __init__(self, spec: ModelSpec, weights: DecoderWeights, kernels: KernelSet, cos_sin: Tensor) -> None:
        self.spec = spec
        self.weights = weights
        self.kernels = kernels
        self.cos_sin = cos_sin
        self.scale = spec.head_dim**-0.5

    def forward(self, batch: ForwardBatch, cache: KVCache) -> Tensor:
        """Compute a step and write its keys and values into the cache.

        Returns:
            [R, vocab_size] float32 logits of batch.sample_rows.
        """
        eps = self.spec.rms_norm_eps
        residual = F.embedding(batch.token_ids, self.weights.embedding)
        normed = self.kernels.rms_norm(residual, self.weights.layers[0].input_norm, eps)
        for index, layer in enumerate(self.weights.layers):
            attended = self._attention(index, layer, normed, batch, cache)
            normed = self.kernels.add_rms_norm(attended, residual, layer.post_norm, eps)
            expanded = layer.down(self.kernels.silu_mul(layer.gate_up(normed)))
            last = index + 1 == len(self.weights.layers)
            next_norm = self.weights.norm if last else self.weights.layers[index + 1].input_norm
            normed = self.kernels.add_rms_norm(expanded, residual, next_norm, eps)
        return self.weights.lm_head(normed.index_select(0, batch.sample_rows)).to(torch.float32)

    def _attention(
        self, index: int, layer: LayerWeights, x: Tensor, batch: ForwardBatch, cache: KVCache
    ) -> Tensor:
        """x [T, hidden_size] -> [T, hidden_size]."""
        spec, kernels = self.spec, self.kernels
        heads, kv_heads, rows = spec.num_heads, spec.num_kv_heads, x.shape[0]
        merged = layer.qkv(x).view(rows, heads + 2 * kv_heads, spec.head_dim)
        q, k, v = merged.split((heads, kv_heads, kv_heads), dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q = kernels.rms_norm(q, layer.q_norm, spec.rms_norm_eps)
            k = kernels.rms_norm(k, layer.k_norm, spec.rms_norm_eps)
        kernels.rope(q, k, batch.positions, self.cos_sin)
        keys, values = cache.keys[index], cache.values[index]
        kernels.kv_write(k, v, keys, values, batch.slots)
        attended = kernels.paged_attention(
            q, keys, values, batch.attention, self.scale, spec.sliding_windows[index]
        )
        return layer.o(attended.view(rows, heads * spec.head_dim))
