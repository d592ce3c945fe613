"""A decoder as one native program: one call a step, from token ids to logits, with nothing of Python in between.

Owns the order of the stages and the memory between them. The stages are the operations' own kernels, so a step's
numbers are those of the operations called one by one. Called by `KernelSet.fuse_decoder` of the set "cpu".
"""

import ctypes
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from llmcli_kernels.decoder import DecoderLayer, DecoderParts, FusedDecoder, PackedLinear
from llmcli_kernels.int4_linear.native import NativeInt4Linear, padded_bias
from llmcli_kernels.int4_linear.native.quantise import Quantised, quantise_stage
from llmcli_kernels.int4_linear.native.records import PackedRecords
from llmcli_kernels.int8_linear.native import NativeInt8Linear, PackedBytes
from llmcli_kernels.native.gather import LINE, gather_stage
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import Stage
from llmcli_kernels.native.program import Program
from llmcli_kernels.native.rowwise import RowStage, rowwise
from llmcli_kernels.paged_attention import AttentionBatch
from llmcli_kernels.paged_attention import native as paged_attention
from llmcli_kernels.paged_attention.native.plan import NUM_WORDS, AttentionPlan, plan
from llmcli_kernels.paged_kv import PagedKV
from llmcli_kernels.rms_norm import native as rms_norm
from llmcli_kernels.rope_kv_write import native as rope_kv_write
from llmcli_kernels.silu_mul import native as silu_mul

DTYPE = torch.bfloat16
ROWS_AT_ONCE = 64  # that memory is reserved for


@dataclass(frozen=True, eq=False)
class _Native:
    """What the stages are made with."""

    host: Host
    int4: NativeInt4Linear
    int8: NativeInt8Linear


class NativeDecoder:
    """See `FusedDecoder`. The program is written anew when a step has more rows than any before."""

    def __init__(self, native: _Native, parts: DecoderParts, kvs: tuple[PagedKV, ...]) -> None:
        self._native, self._parts, self._kvs = native, parts, kvs
        self._pass: _Pass | None = None

    def __call__(
        self,
        token_ids: Tensor,
        positions: Tensor,
        slots: Tensor,
        attention: AttentionBatch,
        sample_rows: Tensor,
    ) -> Tensor:
        room = (_round_up(len(token_ids)), _round_up(len(sample_rows)))
        had = (0, 0) if self._pass is None else self._pass.room
        if self._pass is None or room[0] > had[0] or room[1] > had[1]:
            self._pass = None  # its memory first
            room = (max(room[0], had[0]), max(room[1], had[1]))
            self._pass = _Pass(self._native, self._parts, self._kvs, room)
        return self._pass.run(_Inputs(token_ids, positions, slots, sample_rows), attention)

    def profile(self) -> dict[str, float]:
        """Seconds of each kernel when the last step's stages are run again one by one, on what they left behind.

        For measuring only: what they write into the cache is not the model's.
        """
        assert self._pass is not None, "no step has run"
        return self._pass.program.profile()


def _round_up(rows: int) -> int:
    return max(-(-rows // ROWS_AT_ONCE), 1) * ROWS_AT_ONCE


def fuse(
    host: Host,
    int4: NativeInt4Linear,
    int8: NativeInt8Linear,
    parts: DecoderParts,
    kvs: tuple[PagedKV, ...],
) -> FusedDecoder | None:
    """A program for these parts; None where a stage has no native kernel."""
    by_layer = [(layer.qkv, layer.o, layer.gate_up, layer.down) for layer in parts.layers]
    linears = [linear for layer in by_layer for linear in layer]
    biases = [linear.bias for linear in linears if linear.bias is not None]
    head_norms = [norm for layer in parts.layers if (norm := layer.qk_norm) is not None]
    norms = [parts.norm, *(norm for layer in parts.layers for norm in (layer.input_norm, layer.post_norm))]
    heads, hidden, rotary = parts.num_heads, parts.norm.shape[0], parts.cos_sin.shape[1]
    covered = (
        all(isinstance(linear.packed, PackedRecords) for linear in linears)
        and all(linear.packed.padded_rows == linear.packed.N for linear in linears)
        and len({tuple((linear.packed.N, linear.packed.K) for linear in layer) for layer in by_layer}) == 1
        and (parts.lm_head is None or isinstance(parts.lm_head, PackedBytes))
        and all(part.dtype == DTYPE and part.is_contiguous() for part in (parts.embedding, *norms, *biases))
        and hidden * DTYPE.itemsize % LINE == 0
        and all(norm.q_weight.dtype == norm.k_weight.dtype == DTYPE for norm in head_norms)
        and all(kv.quantized or kv.keys.dtype == DTYPE for kv in kvs)
        and all(heads * kv.head_size == layer.o.packed.K for layer, kv in zip(parts.layers, kvs, strict=True))
        and rms_norm.covers(DTYPE, hidden)
        and all(silu_mul.covers(DTYPE, layer.down.packed.K) for layer in parts.layers)
        and all(paged_attention.covers(host.machine, DTYPE, heads, kv) for kv in kvs)
        and all(rope_kv_write.covers(DTYPE, kv, rotary) for kv in kvs)
    )
    return NativeDecoder(_Native(host, int4, int8), parts, kvs) if covered else None


class _Inputs(NamedTuple):
    """What a step brings, int64 each."""

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    sample_rows: Tensor


@dataclass(frozen=True, eq=False)
class _Rows:
    """Memory between stages, bfloat16 [most rows, width] each; `sampled` and `logits` [most sampled rows, width]."""

    residual: Tensor
    normed: Tensor
    qkv: Tensor
    attended: Tensor
    projected: Tensor
    gate_up: Tensor
    activated: Tensor
    sampled: Tensor
    logits: Tensor

    @classmethod
    def empty(cls, parts: DecoderParts, room: tuple[int, int]) -> "_Rows":
        """Memory that is only reserved: none of it is used before it is written."""
        first, hidden = parts.layers[0], parts.norm.shape[0]
        vocabulary = 0 if parts.lm_head is None else parts.lm_head.padded_rows

        def rows(width: int) -> Tensor:
            return torch.empty(room[0], width, dtype=DTYPE)

        return cls(
            residual=rows(hidden),
            normed=rows(hidden),
            qkv=rows(first.qkv.packed.N),
            attended=rows(first.o.packed.K),
            projected=rows(hidden),
            gate_up=rows(first.gate_up.packed.N),
            activated=rows(first.down.packed.K),
            sampled=torch.empty(room[1], hidden, dtype=DTYPE),
            logits=torch.empty(room[1], vocabulary, dtype=torch.float32),
        )


class _Pass:
    """The program over one cache, with room for steps of so many rows and so many that are sampled."""

    def __init__(
        self, native: _Native, parts: DecoderParts, kvs: tuple[PagedKV, ...], room: tuple[int, int]
    ) -> None:
        self._native, self._host, self._parts, self._kvs = native, native.host, parts, kvs
        self.room = room
        self._rows = _Rows.empty(parts, room)
        self._quantised: dict[tuple[int, int], Quantised] = {}
        self._kept: list[object] = []  # what the program points at
        # What changes from step to step: the kernels' words point here. Plain memory: cheaper to write than a tensor.
        self._step = (ctypes.c_int64 * 6)()
        (
            self._rows_at,
            self._sampled_at,
            self._token_ids_at,
            self._positions_at,
            self._slots_at,
            self._sample_rows_at,
        ) = (ctypes.addressof(self._step) + 8 * i for i in range(6))
        self._inputs: _Inputs | None = None
        self._positions, self._slots = parts.cos_sin.shape[0], kvs[0].keys.shape[0] * kvs[0].block_size
        self._made: dict[int | None, AttentionPlan] = {}
        windows = {layer.sliding_window for layer in parts.layers}
        self._plan_blocks = {window: (ctypes.c_int64 * NUM_WORDS)() for window in windows}
        self.program = Program(self._host, self._stages())

    def run(self, inputs: _Inputs, attention: AttentionBatch) -> Tensor:
        self._check(inputs, attention)
        sampled = len(inputs.sample_rows)
        self._step[:] = (len(inputs.token_ids), sampled, *(part.data_ptr() for part in inputs))
        self._inputs = inputs  # the program points at them
        for window, block in self._plan_blocks.items():
            kv, heads = self._kvs[0], self._parts.num_heads
            made = plan(
                attention,
                kv_heads=kv.num_kv_heads,
                group=heads // kv.num_kv_heads,
                head_size=kv.head_size,
                window=window,
                partials=self._made[window].partials if window in self._made else None,
            )
            block[:] = made.numbers
            self._made[window] = made  # the program points at it, too
        self.program.run()
        head = self._parts.lm_head
        if head is None:
            return self._rows.sampled[:sampled]
        return self._rows.logits[:sampled, : head.N].contiguous()

    def _check(self, inputs: _Inputs, attention: AttentionBatch) -> None:
        """Machine code looks at no limit: a mistake of the caller must not become a write anywhere.

        Raises:
            ValueError, IndexError: the parts of the step do not fit together, or point outside.
        """
        rows = len(inputs.token_ids)
        if not len(inputs.positions) == len(inputs.slots) == attention.num_tokens == rows:
            raise ValueError(
                f"decoder: {rows} rows, {len(inputs.positions)} positions, {len(inputs.slots)} slots,"
                f" {attention.num_tokens} queries"
            )
        limits = (self._parts.embedding.shape[0], self._positions, self._slots, rows)
        names = ("token id", "position", "slot", "sampled row")
        for name, part, limit in zip(names, inputs, limits, strict=True):
            numbers = part.tolist()  # many times faster than asking a tensor
            if numbers and not 0 <= min(numbers) <= max(numbers) < limit:
                wrong = next(number for number in numbers if not 0 <= number < limit)
                raise IndexError(f"decoder: {name} {wrong} is not in 0..{limit - 1}")
        room = attention.block_tables.shape[1] * self._kvs[0].block_size
        if max(attention.kv_lens) > room:
            raise ValueError(
                f"decoder: kv_len {max(attention.kv_lens)} is more than the {room} slots of a block table"
            )

    def _stages(self) -> list[Stage]:
        stages: list[Stage] = []
        embed = self._gather(self._parts.embedding, self._token_ids_at, self._rows.residual)
        for index, (layer, kv) in enumerate(zip(self._parts.layers, self._kvs, strict=True)):
            first = index == 0
            norm = self._norm(layer.input_norm, first=first)
            stages += self._attention([embed, norm] if first else [norm], layer, kv)
            stages += self._mlp(self._norm(layer.post_norm), layer)
        stages.append(rowwise(self._host, self._rows_at, self._norm(self._parts.norm)))
        return [*stages, *self._head()]

    def _head(self) -> list[Stage]:
        """The rows that are sampled, and their logits if the head is here."""
        rows, packed = self._rows, self._parts.lm_head
        gather = self._gather(rows.normed, self._sample_rows_at, rows.sampled)
        if packed is None:
            return [rowwise(self._host, self._sampled_at, gather)]
        quantised = self._native.int8.room(self.room[1], packed)
        self._kept.append(quantised)
        quantise = quantise_stage(self._host, rows.sampled.data_ptr(), quantised, self._sampled_at, packed.K)
        product = self._native.int8.stage(packed, quantised, rows.logits.data_ptr(), self._sampled_at)
        return [
            rowwise(self._host, self._sampled_at, gather, quantise),
            product._replace(kernel=product.kernel._replace(name="lm_head")),
        ]

    def _gather(self, source: Tensor, numbers_at: int, out: Tensor) -> RowStage:
        return gather_stage(
            self._host,
            source=source.data_ptr(),
            numbers_at=numbers_at,
            out=out.data_ptr(),
            row_bytes=source.shape[1] * DTYPE.itemsize,
        )

    def _attention(self, before: list[RowStage], layer: DecoderLayer, kv: PagedKV) -> list[Stage]:
        rows, heads = self._rows, self._parts.num_heads
        stride = rows.qkv.stride(0) * DTYPE.itemsize
        rope = rope_kv_write.stage(
            self._host,
            DTYPE,
            qkv=rows.qkv.data_ptr(),
            qkv_stride=stride,
            positions_at=self._positions_at,
            slots_at=self._slots_at,
            rows_at=self._rows_at,
            cos_sin=self._parts.cos_sin,
            kv=kv,
            num_heads=heads,
            qk_norm=layer.qk_norm,
        )
        attend = paged_attention.stages(
            self._host,
            DTYPE,
            kv,
            q=rows.qkv.data_ptr(),
            q_stride=stride,
            out=rows.attended.data_ptr(),
            num_heads=heads,
            scale=self._parts.scale,
            window=layer.sliding_window,
            plan_at=ctypes.addressof(self._plan_blocks[layer.sliding_window]),
        )
        return [
            *self._linear(layer.qkv, rows.normed, rows.qkv, *before),
            rope,
            *attend,
            *self._linear(layer.o, rows.attended, rows.projected),
        ]

    def _mlp(self, norm: RowStage, layer: DecoderLayer) -> list[Stage]:
        rows = self._rows
        activation = silu_mul.stage(
            self._host,
            DTYPE,
            x=rows.gate_up.data_ptr(),
            x_stride=rows.gate_up.stride(0) * DTYPE.itemsize,
            out=rows.activated.data_ptr(),
            width=rows.activated.shape[1],
        )
        return [
            *self._linear(layer.gate_up, rows.normed, rows.gate_up, norm),
            *self._linear(layer.down, rows.activated, rows.projected, activation),
        ]

    def _linear(self, linear: PackedLinear, x: Tensor, y: Tensor, *before: RowStage) -> list[Stage]:
        """The product, ahead of it the quantising of x and, of the same rows, what makes x."""
        packed: PackedRecords = linear.packed
        key = (packed.K, packed.group_size)
        if key not in self._quantised:
            self._quantised[key] = self._native.int4.room(self.room[0], packed)
        quantised, bias = self._quantised[key], padded_bias(packed, linear.bias)
        self._kept.append(bias)
        quantise = quantise_stage(self._host, x.data_ptr(), quantised, self._rows_at, packed.K)
        return [
            rowwise(self._host, self._rows_at, *before, quantise),
            self._native.int4.stage(packed, bias, quantised, y.data_ptr(), self._rows_at),
        ]

    def _norm(self, weight: Tensor, *, first: bool = False) -> RowStage:
        """To `normed`: of the residual alone at first, then of the residual after adding a layer's output."""
        rows = self._rows
        x = rows.residual if first else rows.projected
        return rms_norm.stage(
            self._host,
            DTYPE,
            x=x.data_ptr(),
            x_stride=x.stride(0) * DTYPE.itemsize,
            residual=None if first else rows.residual.data_ptr(),
            weight=weight.data_ptr(),
            out=rows.normed.data_ptr(),
            width=weight.shape[0],
            eps=self._parts.eps,
        )
