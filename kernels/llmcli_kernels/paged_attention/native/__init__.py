"""Paged attention as native kernels: the pages are read where they lie, 8-bit ones too.

Owns the choice of the variant and the words of a layer. Two kernels, one after the other: "attend" (`attend`) and
"merge" (`merge`) for sequences so long that they are cut. What they have to do in a step is in a plan (`plan`).

The same bits come out whatever the number of threads and whatever else is in the batch; but not in whatever chunks a
prompt comes: they decide whether its positions are split, and int8 values' shares are of what a strip has of them.
"""

import math
from collections.abc import Callable

import torch
from llvmlite import ir
from torch import Tensor

from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import Stage, words
from llmcli_kernels.native.machine import Machine
from llmcli_kernels.native.math import KINDS, float_word
from llmcli_kernels.paged_attention import AttentionBatch
from llmcli_kernels.paged_attention.native.attend import emit_attend
from llmcli_kernels.paged_attention.native.form import LARGEST_HEAD, RUN, Form, rows_of
from llmcli_kernels.paged_attention.native.merge import emit_merge
from llmcli_kernels.paged_attention.native.plan import AttentionPlan, plan
from llmcli_kernels.paged_kv import PagedKV

__all__ = ["AttentionPlan", "NativePagedAttention", "covers", "plan", "stages"]

STORAGES = KINDS | {torch.int8: "int8", torch.float8_e4m3fn: "fp8"}
NO_WINDOW = 2**31 - 1

Operation = Callable[[Tensor, PagedKV, AttentionBatch, float, int | None, float | None], Tensor]


class NativePagedAttention:
    """The operation; the fallback does what `covers` does not, and soft caps."""

    def __init__(self, host: Host, fallback: Operation) -> None:
        self._host, self._fallback = host, fallback

    def __call__(
        self,
        q: Tensor,
        kv: PagedKV,
        batch: AttentionBatch,
        scale: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> Tensor:
        num_heads = q.shape[1]
        if softcap is not None or not covers(self._host.machine, q.dtype, num_heads, kv):
            return self._fallback(q, kv, batch, scale, sliding_window, softcap)
        key = ("native", kv.keys.shape[1:], num_heads, sliding_window)
        if key not in batch.plans:
            made = plan(
                batch,
                kv_heads=kv.num_kv_heads,
                group=num_heads // kv.num_kv_heads,
                head_size=kv.head_size,
                window=sliding_window,
            )
            batch.plans[key] = (made, made.block())
        _, block = batch.plans[key]
        out = torch.empty(q.shape, dtype=q.dtype)
        self._host.run(
            *stages(
                self._host,
                q.dtype,
                kv,
                q=q.data_ptr(),
                q_stride=q.stride(0) * q.element_size(),
                out=out.data_ptr(),
                num_heads=num_heads,
                scale=scale,
                window=sliding_window,
                plan_at=block.data_ptr(),
            )
        )
        return out


def covers(machine: Machine, dtype: torch.dtype, num_heads: int, kv: PagedKV) -> bool:
    """Whether there are kernels for these queries and this cache."""
    size, block_size, group = kv.head_size, kv.block_size, num_heads // kv.num_kv_heads
    return (
        dtype in KINDS
        and size % machine.lanes == 0
        and size <= LARGEST_HEAD
        and group <= rows_of(size)
        and block_size >= RUN
        and block_size & (block_size - 1) == 0
    )


def stages(
    host: Host,
    dtype: torch.dtype,
    kv: PagedKV,
    *,
    q: int,
    q_stride: int,
    out: int,
    num_heads: int,
    scale: float,
    window: int | None,
    plan_at: int,
) -> list[Stage]:
    """One layer's attention, of what `covers`.

    Args:
        q: address of [T, num_heads, D], and `q_stride` bytes from token to token.
        out: address of [T, num_heads, D] contiguous.
        plan_at: address of the block of a plan (`AttentionPlan.numbers`) of the same heads and window; read when the
            stages run.
    """
    form = form_of(host.machine, dtype, kv)
    compiled = host.compile(f"paged_attention {form}", lambda module, _: _emit(module, form))
    args = words(
        q,
        q_stride,
        out,
        kv.keys.data_ptr(),
        kv.values.data_ptr(),
        0 if kv.key_scales is None else kv.key_scales.data_ptr(),
        0 if kv.value_scales is None else kv.value_scales.data_ptr(),
        kv.num_kv_heads,
        num_heads // kv.num_kv_heads,
        kv.block_size.bit_length() - 1,
        float_word(scale * math.log2(math.e)),
        NO_WINDOW if window is None else min(window, NO_WINDOW),
        plan_at,
        host.team.num_threads(),
    )
    return [Stage(compiled.kernel(name), args) for name in ("attend", "merge")]


def form_of(machine: Machine, dtype: torch.dtype, kv: PagedKV) -> Form:
    storage = STORAGES[kv.keys.dtype]
    arithmetic = "float"
    if storage == "int8" and dtype != torch.float32:
        arithmetic = "int16"
    elif storage == "bf16" and machine.bfloat16_pairs:
        arithmetic = "bf16"
    return Form(KINDS[dtype], storage, kv.head_size, arithmetic, machine.lanes)


def _emit(module: ir.Module, form: Form) -> None:
    emit_attend(module, form)
    emit_merge(module, form)
