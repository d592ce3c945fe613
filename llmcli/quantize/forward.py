"""The forward pass of one decoder layer over whole texts, in plain float32 torch: for calibration and perplexity.

No cache and no kernels: every text has the same length and is computed at once, with the arithmetic of
`model/decoder.py`. Shows the inputs of the matrices to whoever asks. Called by `quantize/awq.py` and
`quantize/perplexity.py`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli.errors import CheckpointError
from llmcli.model.rope import build_cos_sin
from llmcli.model.spec import ModelSpec
from llmcli.quantize.reader import LayerTensors

CHUNK_TOKENS = 4096
Observe = Callable[[str, Tensor], None]
"""Gets the name of the first matrix that has this input, and the input [tokens, K]."""


def advance(
    hidden: Tensor, layer: LayerTensors, spec: ModelSpec, index: int, observe: Observe | None = None
) -> None:
    """Take all texts through a layer, some of them at a time.

    Args:
        hidden: [texts, tokens, hidden_size] float32, changed in place; may lie on another device than the layer.

    Raises:
        CheckpointError: the layer gives NaN or infinity; names it.
    """
    device = layer["input_layernorm.weight"].device
    length = hidden.shape[1]
    cos_sin = build_cos_sin(spec.rope, length).to(device)
    for chunk in hidden.split(max(1, CHUNK_TOKENS // length)):
        out = run_layer(chunk.to(device), layer, spec, spec.sliding_windows[index], cos_sin, observe)
        if not torch.isfinite(out).all():
            raise CheckpointError(
                f"layer {index} gives NaN or infinity in float32",
                why="its weights are damaged, or this model does not compute what its config.json says",
            )
        chunk.copy_(out)


def run_layer(
    hidden: Tensor,
    layer: LayerTensors,
    spec: ModelSpec,
    window: int | None,
    cos_sin: Tensor,
    observe: Observe | None = None,
) -> Tensor:
    """hidden [texts, tokens, hidden_size] -> the same shape."""
    show = observe or _ignore

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, layer[f"{name}.weight"], layer.get(f"{name}.bias"))

    normed = rms_norm(hidden, layer["input_layernorm.weight"], spec.rms_norm_eps)
    show("self_attn.q_proj", normed.flatten(0, 1))
    q, k, v = (linear(f"self_attn.{name}_proj", normed) for name in "qkv")
    attended = _attention(q, k, v, layer, spec, window, cos_sin)
    show("self_attn.o_proj", attended.flatten(0, 1))
    hidden = hidden + linear("self_attn.o_proj", attended)

    normed = rms_norm(hidden, layer["post_attention_layernorm.weight"], spec.rms_norm_eps)
    show("mlp.gate_proj", normed.flatten(0, 1))
    inner = F.silu(linear("mlp.gate_proj", normed)) * linear("mlp.up_proj", normed)
    show("mlp.down_proj", inner.flatten(0, 1))
    return hidden + linear("mlp.down_proj", inner)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layer: LayerTensors,
    spec: ModelSpec,
    window: int | None,
    cos_sin: Tensor,
) -> Tensor:
    """[texts, tokens, heads * head_dim] of queries, and of keys and values, -> that of the queries."""
    texts, length, _ = q.shape
    q, k, v = (x.view(texts, length, -1, spec.head_dim).transpose(1, 2) for x in (q, k, v))
    if spec.qk_norm:
        q = rms_norm(q, layer["self_attn.q_norm.weight"], spec.rms_norm_eps)
        k = rms_norm(k, layer["self_attn.k_norm.weight"], spec.rms_norm_eps)
    q, k = rotate(q, cos_sin), rotate(k, cos_sin)
    copies = spec.num_heads // spec.num_kv_heads
    k, v = k.repeat_interleave(copies, 1), v.repeat_interleave(copies, 1)
    mask = None if window is None or window >= length else _window_mask(length, window, q.device)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    return out.transpose(1, 2).reshape(texts, length, -1)


def rotate(x: Tensor, cos_sin: Tensor) -> Tensor:
    """The rotary embedding of x [..., tokens, head_dim]; pairs are (i, i + head_dim / 2)."""
    cos, sin = cos_sin.chunk(2, dim=-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """True where a query may look: at itself and the window - 1 tokens before it."""
    back = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (back >= 0) & (back < window)


def _ignore(name: str, inputs: Tensor) -> None:
    pass
