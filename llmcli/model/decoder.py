"""The decoder: one forward pass for every family that differs only in the flags of `ModelSpec`.

Pre-norm transformer with rotary embeddings, grouped-query attention over the paged cache and a gated MLP
(Llama, arXiv 2302.13971). All state comes in as arguments; the arithmetic is the kernel set's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli.model.forward_batch import ForwardBatch, KVCache
from llmcli.model.linear import Int4Linear, Int8Linear, Linear
from llmcli.model.spec import ModelSpec
from llmcli.model.weights import DecoderWeights, LayerWeights
from llmcli_kernels import KernelSet
from llmcli_kernels.activations import LinearOutput, as_tensor
from llmcli_kernels.decoder import DecoderLayer, DecoderParts, FusedDecoder, PackedLinear


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
        self._fused: FusedDecoder | None = None
        self._fused_for: KVCache | None = None

    def forward(self, batch: ForwardBatch, cache: KVCache) -> Tensor:
        """Compute a step and write its keys and values into the cache.

        Returns:
            [R, vocab_size] float32 logits of batch.sample_rows, valid until the next call.
        """
        fused = self._fuse(cache)
        if fused is None:
            normed = self._layers(batch, cache)
            if len(batch.sample_rows) < len(normed):  # else every row is sampled, in order
                normed = normed.index_select(0, batch.sample_rows)
        else:
            normed = fused(batch.token_ids, batch.positions, batch.slots, batch.attention, batch.sample_rows)
            if isinstance(self.weights.lm_head, Int8Linear):
                return normed  # the logits already, see `_parts`
        return as_tensor(self.weights.lm_head(normed)).to(torch.float32)

    def _layers(self, batch: ForwardBatch, cache: KVCache) -> Tensor:
        """The normed output of the last layer [T, hidden_size], one operation after the other."""
        residual = F.embedding(batch.token_ids, self.weights.embedding)
        eps, kernels = self.spec.rms_norm_eps, self.kernels
        normed = kernels.rms_norm(residual, self.weights.layers[0].input_norm, eps)
        for index, layer in enumerate(self.weights.layers):
            attended = self._attention(index, layer, normed, batch, cache)
            normed = kernels.add_rms_norm(attended, residual, layer.post_norm, eps)
            expanded = layer.down(kernels.silu_mul(layer.gate_up(normed)))
            last = index + 1 == len(self.weights.layers)
            next_norm = self.weights.norm if last else self.weights.layers[index + 1].input_norm
            normed = kernels.add_rms_norm(expanded, residual, next_norm, eps)
        return normed

    def _attention(
        self, index: int, layer: LayerWeights, x: Tensor, batch: ForwardBatch, cache: KVCache
    ) -> LinearOutput:
        """x [T, hidden_size] -> [T, hidden_size]."""
        heads = self.spec.num_heads
        attended = self.kernels.attend(
            layer.qkv(x),
            batch.positions,
            batch.slots,
            self.cos_sin,
            cache.layers[index],
            heads,
            layer.qk_norm,
            batch.attention,
            self.scale,
            self.spec.sliding_windows[index],
            None,
        )
        return layer.o(attended.view(-1, heads * self.spec.head_dim))

    def _fuse(self, cache: KVCache) -> FusedDecoder | None:
        """A step in one call, where the kernel set can do that with this cache; worked out once for it."""
        if cache is not self._fused_for:
            parts = self._parts()
            self._fused = None if parts is None else self.kernels.fuse_decoder(parts, cache.layers)
            self._fused_for = cache
        return self._fused

    def _parts(self) -> DecoderParts | None:
        """The model as kernel sets may run it at once, with a head in 8 bits; None unless all layers are 4-bit."""
        layers = [
            DecoderLayer(
                layer.input_norm,
                _packed(layer.qkv),
                layer.qk_norm,
                _packed(layer.o),
                layer.post_norm,
                _packed(layer.gate_up),
                _packed(layer.down),
                window,
            )
            for layer, window in zip(self.weights.layers, self.spec.sliding_windows, strict=True)
            if all(isinstance(part, Int4Linear) for part in (layer.qkv, layer.o, layer.gate_up, layer.down))
        ]
        if len(layers) < len(self.weights.layers):
            return None
        head = self.weights.lm_head
        return DecoderParts(
            embedding=self.weights.embedding,
            layers=tuple(layers),
            norm=self.weights.norm,
            lm_head=head.packed if isinstance(head, Int8Linear) else None,
            eps=self.spec.rms_norm_eps,
            num_heads=self.spec.num_heads,
            scale=self.scale,
            cos_sin=self.cos_sin,
        )


def _packed(linear: Linear) -> PackedLinear:
    assert isinstance(linear, Int4Linear)
    return PackedLinear(linear.packed, linear.bias)
