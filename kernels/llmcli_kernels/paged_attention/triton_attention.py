"""Paged attention on a GPU: sorts a step's sequences into launches of the decode and the prefill kernel.

Owns the plan of a step, which is kept in `AttentionBatch.plans` and used by all of its layers. The mathematics is in
triton_decode.py and triton_prefill.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from llmcli_kernels.activations import Partials
from llmcli_kernels.gpu import Gpu
from llmcli_kernels.paged_attention import AttentionBatch, check_paged_attention
from llmcli_kernels.paged_attention.triton_call import Call, Heads, Sequences, Unrotated
from llmcli_kernels.paged_attention.triton_decode import (
    DecodeLaunch,
    decode,
    decode_config,
    num_programs,
    num_splits,
)
from llmcli_kernels.paged_attention.triton_prefill import prefill, prefill_config, query_tiles
from llmcli_kernels.paged_kv import PagedKV
from llmcli_kernels.rope_kv_write import QKNorm
from llmcli_kernels.rope_kv_write.triton_rope_kv_write import rope_kv_write
from llmcli_kernels.tuning import TuningTable

ALIGNMENT = 4  # int32s
# Sequences of so few queries go to the decode kernel, which can split their keys, ...
MAX_DECODE_QUERIES = 16
# ... unless they and the heads of a group are so many columns that its programs would read keys too often.
MAX_DECODE_COLUMNS = 128


@dataclass(frozen=True, eq=False)
class StepPlan:
    """The launches of a step.

    Whoever replays a captured graph may overwrite the tensors between replays, as long as every sequence has as many
    queries as before and no more keys than the plan was made for; sequences of one query may have the length 0.

    Attributes:
        tiles: int32 [tiles, 2] on the device, queries for the prefill kernel, or None.
    """

    sequences: Sequences
    decodes: tuple[DecodeLaunch, ...]
    tiles: Tensor | None


class TritonPagedAttention:
    """`paged_attention` for the GPU that it was made for."""

    def __init__(self, table: TuningTable, gpu: Gpu) -> None:
        self._table = table
        self._num_sms = gpu.num_sms
        self._capability = gpu.capability if gpu.nvidia else (0, 0)

    def __call__(
        self,
        q: Tensor,
        kv: PagedKV,
        batch: AttentionBatch,
        scale: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """Raises ValueError for 8-bit storage of an odd head size, and for a scale that is not above 0."""
        return self._run(q, None, kv, batch, scale, sliding_window, softcap)

    def attend(
        self,
        qkv: Tensor | Partials,
        positions: Tensor,
        slots: Tensor,
        cos_sin: Tensor,
        kv: PagedKV,
        num_heads: int,
        qk_norm: QKNorm | None,
        batch: AttentionBatch,
        scale: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """`attend`: where every sequence has one query, the attention kernel rotates and writes the cache itself."""
        if len(batch.kv_lens) < batch.num_tokens:
            q = rope_kv_write(qkv, positions, slots, cos_sin, kv, num_heads, qk_norm)
            check_paged_attention(q, kv, batch, scale, sliding_window, softcap)
            return self._run(q, None, kv, batch, scale, sliding_window, softcap)
        parts = qkv.parts if isinstance(qkv, Partials) else qkv.unsqueeze(0)
        form = torch.empty(qkv.shape[0], num_heads, kv.head_size, dtype=qkv.dtype, device=parts.device)
        check_paged_attention(form, kv, batch, scale, sliding_window, softcap)
        return self._run(form, Unrotated(parts, cos_sin, qk_norm), kv, batch, scale, sliding_window, softcap)

    def _run(
        self,
        q: Tensor,
        unrotated: Unrotated | None,
        kv: PagedKV,
        batch: AttentionBatch,
        scale: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Tensor:
        if kv.quantized and kv.head_size % 2:
            raise ValueError(f"paged_attention: in 8 bits the head size must be even, got {kv.head_size}")
        if not scale > 0:
            raise ValueError(f"paged_attention: scale must be above 0, got {scale}")
        heads = Heads(
            num_heads=q.shape[1],
            num_kv_heads=kv.num_kv_heads,
            head_size=kv.head_size,
            block_size=kv.block_size,
            dtype=q.dtype,
            storage=kv.keys.dtype,
            capability=self._capability,
        )
        config = prefill_config(self._table, heads, softcap is not None)
        plan = self._plan(batch, heads.group, config.rows // heads.group)
        out = q if unrotated is not None else torch.empty(q.shape, dtype=q.dtype, device=q.device)
        call = Call(q, kv, heads, plan.sequences, out, scale, sliding_window, softcap, unrotated)
        for launch in plan.decodes:
            self._decode(call, launch)
        if plan.tiles is not None:
            prefill(call, plan.tiles, config)
        return out

    def _plan(self, batch: AttentionBatch, group: int, tokens: int) -> StepPlan:
        key = ("triton", group, tokens)
        if key not in batch.plans:
            batch.plans[key] = plan_step(batch, group, tokens)
        return cast("StepPlan", batch.plans[key])

    def _decode(self, call: Call, launch: DecodeLaunch) -> None:
        config = decode_config(self._table, call.heads, launch.max_queries)
        keys = launch.longest
        if call.sliding_window is not None:
            keys = min(keys, call.sliding_window + launch.max_queries)
        splits = num_splits(config, num_programs(config, call.heads, launch), self._num_sms, keys)
        decode(call, launch, config, splits)


def plan_step(batch: AttentionBatch, group: int, tokens: int) -> StepPlan:
    """Sort the sequences, and bring what the kernels read onto the device, with one copy that nothing waits for.

    Args:
        group: query heads that share a head of keys.
        tokens: queries of a program of the prefill kernel.
    """
    queries = [end - start for start, end in zip(batch.query_starts, batch.query_starts[1:], strict=False)]
    few = [
        n
        for n, count in enumerate(queries)
        if 1 < count <= min(MAX_DECODE_QUERIES, MAX_DECODE_COLUMNS // group)
    ]
    single = [n for n, count in enumerate(queries) if count == 1]
    rest = sorted(set(range(len(queries))).difference(single, few))
    tiles = query_tiles(((n, queries[n], batch.kv_lens[n]) for n in rest), tokens)
    lists = (batch.query_starts, batch.kv_lens, single, few, [number for tile in tiles for number in tile])
    starts, lens, *chosen, tile_numbers = _on_device(lists, batch.block_tables.device)
    if batch.lengths is not None:
        lens = batch.lengths
    decodes = tuple(
        DecodeLaunch(
            chosen=numbers,
            max_queries=max(queries[n] for n in members),
            longest=max(batch.kv_lens[n] for n in members),
        )
        for numbers, members in zip(chosen, (single, few), strict=True)
        if members
    )
    tables = batch.block_tables.to(torch.int32).contiguous()
    return StepPlan(Sequences(starts, lens, tables), decodes, tile_numbers.view(-1, 2) if tiles else None)


def _on_device(lists: Iterable[Iterable[int]], device: torch.device) -> list[Tensor]:
    """int32 tensors of some lists, copied together, each at a multiple of 16 bytes: Triton compiles another kernel for
    a pointer with less."""
    parts = [list(numbers) for numbers in lists]
    padded = [part + [0] * (-len(part) % ALIGNMENT) for part in parts]
    together = torch.tensor([number for part in padded for number in part], dtype=torch.int32, device="cpu")
    if device.type == "cuda":
        together = together.pin_memory().to(device, non_blocking=True)
    pieces = together.split([len(part) for part in padded])
    return [piece[: len(part)] for piece, part in zip(pieces, parts, strict=True)]
