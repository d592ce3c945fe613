"""Plain PyTorch attention, one sequence at a time: the truth that faster kernels are compared with."""

import torch
from torch import Tensor

from llmcli_kernels.paged_attention import AttentionBatch
from llmcli_kernels.paged_kv import PagedKV, dequantize


def paged_attention(
    q: Tensor,
    kv: PagedKV,
    batch: AttentionBatch,
    scale: float,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for index, kv_len in enumerate(batch.kv_lens):
        start, end = batch.query_starts[index : index + 2]
        query_positions = torch.arange(kv_len - (end - start), kv_len, device=q.device)
        window = kv_len if sliding_window is None else sliding_window
        first_key = max(0, kv_len - (end - start) - window + 1)
        key_positions = torch.arange(first_key, kv_len, device=q.device)

        keys = _gather(kv.keys, kv.key_scales, batch.block_tables[index], key_positions)
        values = _gather(kv.values, kv.value_scales, batch.block_tables[index], key_positions)
        group = q.shape[1] // keys.shape[0]
        keys = keys.repeat_interleave(group, dim=0)
        values = values.repeat_interleave(group, dim=0)

        queries = q[start:end].transpose(0, 1).to(torch.float32)
        scores = queries @ keys.transpose(1, 2) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        distance = query_positions[:, None] - key_positions[None, :]
        scores = scores.masked_fill((distance < 0) | (distance >= window), float("-inf"))
        out[start:end] = (torch.softmax(scores, dim=-1) @ values).transpose(0, 1).to(q.dtype)
    return out


def _gather(cache: Tensor, scales: Tensor | None, table: Tensor, positions: Tensor) -> Tensor:
    """The entries of one sequence at some positions, [HKV, len, D] float32."""
    block_size = cache.shape[2]
    blocks = table[torch.div(positions, block_size, rounding_mode="floor")].to(torch.int64)
    offsets = positions % block_size
    if scales is None:
        return cache[blocks, :, offsets].transpose(0, 1).to(torch.float32)
    # Indexing float8 is not implemented everywhere; bytes are.
    stored = cache.view(torch.uint8)[blocks, :, offsets].view(cache.dtype)
    return dequantize(stored, scales[blocks, :, offsets]).transpose(0, 1)
