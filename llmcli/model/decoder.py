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
from llmcli_kernels.activations import LinearOutput, as_tensor


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
        eps, kernels = self.spec.rms_norm_eps, self.kernels
        residual = F.embedding(batch.token_ids, self.weights.embedding)
        normed = kernels.rms_norm(residual, self.weights.layers[0].input_norm, eps)
        for index, layer in enumerate(self.weights.layers):
            attended = self._attention(index, layer, normed, batch, cache)
            normed = kernels.add_rms_norm(attended, residual, layer.post_norm, eps)
            expanded = layer.down(kernels.silu_mul(layer.gate_up(normed)))
            last = index + 1 == len(self.weights.layers)
            next_norm = self.weights.norm if last else self.weights.layers[index + 1].input_norm
            normed = kernels.add_rms_norm(expanded, residual, next_norm, eps)
        hidden = normed.index_select(0, batch.sample_rows)
        return as_tensor(self.weights.lm_head(hidden)).to(torch.float32)

    def _attention(
        self, index: int, layer: LayerWeights, x: Tensor, batch: ForwardBatch, cache: KVCache
    ) -> LinearOutput:
        """x [T, hidden_size] -> [T, hidden_size]."""
        heads, kv = self.spec.num_heads, cache.layers[index]
        q = self.kernels.rope_kv_write(
            layer.qkv(x), batch.positions, batch.slots, self.cos_sin, kv, heads, layer.qk_norm
        )
        window = self.spec.sliding_windows[index]
        attended = self.kernels.paged_attention(q, kv, batch.attention, self.scale, window, None)
        return layer.o(attended.view(-1, heads * self.spec.head_dim))
