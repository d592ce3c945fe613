"""A decoder's layers as one native program: one call a step, nothing of Python between the layers.

Owns the order of the stages and the memory between them. The stages are the operations' own kernels, so a step's
numbers are those of the operations called one by one. Called by `KernelSet.fuse_decoder` of the set "cpu".
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli_kernels.decoder import DecoderLayer, DecoderParts, FusedDecoder, PackedLinear
from llmcli_kernels.int4_linear.native import NativeInt4Linear, padded_bias
from llmcli_kernels.int4_linear.native.quantise import Quantised, quantise_stage
from llmcli_kernels.int4_linear.native.records import PackedRecords
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import Stage, words
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


class NativeDecoder:
    """See `FusedDecoder`. The program is written anew when a step has more rows than any before."""

    def __init__(
        self, host: Host, int4: NativeInt4Linear, parts: DecoderParts, kvs: tuple[PagedKV, ...]
    ) -> None:
        self._host, self._int4, self._parts, self._kvs = host, int4, parts, kvs
        self._pass: _Pass | None = None

    def __call__(self, hidden: Tensor, positions: Tensor, slots: Tensor, attention: AttentionBatch) -> Tensor:
        rows = hidden.shape[0]
        if self._pass is None or self._pass.most_rows < rows:
            self._pass = None  # its memory first
            most_rows = -(-rows // ROWS_AT_ONCE) * ROWS_AT_ONCE
            self._pass = _Pass(self._host, self._int4, self._parts, self._kvs, most_rows)
        return self._pass.run(hidden, positions, slots, attention)

    def profile(self) -> dict[str, float]:
        """Seconds of each kernel when the last step's stages are run again one by one, on what they left behind.

        For measuring only: what they write into the cache is not the model's.
        """
        assert self._pass is not None, "no step has run"
        return self._pass.program.profile()


def fuse(
    host: Host, int4: NativeInt4Linear, parts: DecoderParts, kvs: tuple[PagedKV, ...]
) -> FusedDecoder | None:
    """A program for these layers; None where a stage has no native kernel."""
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
        and all(vector.dtype == DTYPE and vector.is_contiguous() for vector in (*norms, *biases))
        and all(norm.q_weight.dtype == norm.k_weight.dtype == DTYPE for norm in head_norms)
        and all(kv.quantized or kv.keys.dtype == DTYPE for kv in kvs)
        and all(heads * kv.head_size == layer.o.packed.K for layer, kv in zip(parts.layers, kvs, strict=True))
        and rms_norm.covers(DTYPE, hidden)
        and all(silu_mul.covers(DTYPE, layer.down.packed.K) for layer in parts.layers)
        and all(paged_attention.covers(host.machine, DTYPE, heads, kv) for kv in kvs)
        and all(rope_kv_write.covers(DTYPE, kv, rotary) for kv in kvs)
    )
    return NativeDecoder(host, int4, parts, kvs) if covered else None


@dataclass(frozen=True, eq=False)
class _Rows:
    """Memory between stages, bfloat16 [most rows, width] each."""

    residual: Tensor
    normed: Tensor
    qkv: Tensor
    attended: Tensor
    projected: Tensor
    gate_up: Tensor
    activated: Tensor


class _Pass:
    """The program for steps of up to `most_rows` rows over one cache."""

    def __init__(
        self,
        host: Host,
        int4: NativeInt4Linear,
        parts: DecoderParts,
        kvs: tuple[PagedKV, ...],
        most_rows: int,
    ) -> None:
        self._host, self._int4, self._parts, self._kvs = host, int4, parts, kvs
        self.most_rows = most_rows
        first = parts.layers[0]
        widths = (first.o.packed.N, first.o.packed.N, first.qkv.packed.N, first.o.packed.K)
        widths = (*widths, first.o.packed.N, first.gate_up.packed.N, first.down.packed.K)
        self._rows = _Rows(*(torch.empty(most_rows, width, dtype=DTYPE) for width in widths))
        self._quantised: dict[tuple[int, int], Quantised] = {}
        self._biases: list[Tensor] = []  # kept alive for the stages
        # What changes from step to step: the kernels' words point here.
        self._step = words(0, 0, 0)
        self._rows_at, self._positions_at, self._slots_at = (self._step.data_ptr() + 8 * i for i in range(3))
        self._kept: list[object] = []
        self._positions, self._slots = parts.cos_sin.shape[0], kvs[0].keys.shape[0] * kvs[0].block_size
        self._made: dict[int | None, AttentionPlan] = {}
        windows = {layer.sliding_window for layer in parts.layers}
        self._plan_blocks = {window: words(*[0] * NUM_WORDS) for window in windows}
        self.program = Program(host, self._stages())

    def run(self, hidden: Tensor, positions: Tensor, slots: Tensor, attention: AttentionBatch) -> Tensor:
        rows = hidden.shape[0]
        self._check(rows, positions, slots, attention)
        self._rows.residual[:rows].copy_(hidden)
        self._step[:] = words(rows, positions.data_ptr(), slots.data_ptr())
        self._kept = [positions, slots]  # the program points at them
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
            block.copy_(made.block())
            self._made[window] = made  # the program points at it, too
        self.program.run()
        return self._rows.normed[:rows]

    def _check(self, rows: int, positions: Tensor, slots: Tensor, attention: AttentionBatch) -> None:
        """Machine code looks at no limit: a mistake of the caller must not become a write anywhere.

        Raises:
            ValueError, IndexError: the parts of the step do not fit together, or point outside.
        """
        if not len(positions) == len(slots) == attention.num_tokens == rows:
            raise ValueError(
                f"decoder: {rows} rows, {len(positions)} positions, {len(slots)} slots,"
                f" {attention.num_tokens} queries"
            )
        for name, numbers, limit in (("position", positions, self._positions), ("slot", slots, self._slots)):
            low, high = (int(bound) for bound in numbers.aminmax())
            if low < 0 or high >= limit:
                raise IndexError(f"decoder: {name} {low if low < 0 else high} is not in 0..{limit - 1}")
        room = attention.block_tables.shape[1] * self._kvs[0].block_size
        if max(attention.kv_lens) > room:
            raise ValueError(
                f"decoder: kv_len {max(attention.kv_lens)} is more than the {room} slots of a block table"
            )

    def _stages(self) -> list[Stage]:
        stages: list[Stage] = []
        for index, (layer, kv) in enumerate(zip(self._parts.layers, self._kvs, strict=True)):
            stages += self._attention(self._norm(layer.input_norm, first=index == 0), layer, kv)
            stages += self._mlp(self._norm(layer.post_norm), layer)
        stages.append(rowwise(self._host, self._rows_at, self._norm(self._parts.norm)))
        return stages

    def _attention(self, norm: RowStage, layer: DecoderLayer, kv: PagedKV) -> list[Stage]:
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
            plan_at=self._plan_blocks[layer.sliding_window].data_ptr(),
        )
        return [
            *self._linear(layer.qkv, rows.normed, rows.qkv, norm),
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
            self._quantised[key] = self._int4.room(self.most_rows, packed)
        quantised, bias = self._quantised[key], padded_bias(packed, linear.bias)
        self._biases.append(bias)
        quantise = quantise_stage(self._host, x.data_ptr(), quantised, self._rows_at, packed.K)
        return [
            rowwise(self._host, self._rows_at, *before, quantise),
            self._int4.stage(packed, bias, quantised, y.data_ptr(), self._rows_at),
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
