"""The words of the kernel, what varies in its code, and its body.

The words:

    QKV, QKV_STRIDE             address of rows of heads, and bytes from row to row; q is rotated in place
    POSITIONS_AT, SLOTS_AT      addresses of the addresses of int64 [rows]
    ROWS_AT                     address of the number of rows
    COS_SIN                     address of float32 [P, R]
    KEYS, VALUES                addresses of [num_blocks, KV_HEADS, 2^BLOCK_SHIFT, D]
    KEY_SCALES, VALUE_SCALES    addresses of float32 [num_blocks, KV_HEADS, 2^BLOCK_SHIFT]; unread if storage is `kind`
    NUM_HEADS, KV_HEADS, BLOCK_SHIFT
    Q_WEIGHT, K_WEIGHT, EPS     of the head norm: addresses, float32; unread without it

The kernel looks at no limit: positions and slots must be in range. Heads are computed one by one, so a piece is a row
or, where rows are long, a range of its heads. Knows neither tensors nor who calls it.
"""

from dataclasses import dataclass
from functools import reduce

from llvmlite import ir

from llmcli_kernels.native.emit import F32, I64, Emit, Value, const
from llmcli_kernels.native.kernel import function, pieces_function, word
from llmcli_kernels.native.math import fma, sum_lanes
from llmcli_kernels.rms_norm.native import inverse_rms, normed
from llmcli_kernels.rope_kv_write.native.storage import store_8_bits

PIECE_NUMBERS = 4096  # of a row
PARTIAL_SUMS = 4  # of squares, a vector each

(
    QKV,
    QKV_STRIDE,
    POSITIONS_AT,
    SLOTS_AT,
    ROWS_AT,
    COS_SIN,
    KEYS,
    VALUES,
    KEY_SCALES,
    VALUE_SCALES,
    NUM_HEADS,
    KV_HEADS,
    BLOCK_SHIFT,
    Q_WEIGHT,
    K_WEIGHT,
    EPS,
) = range(16)  # words


@dataclass(frozen=True)
class Variant:
    """What code is generated for.

    Attributes:
        kind: of qkv and of the norm's weights, see `native.math`.
        storage: "int8", "fp8", or `kind`.
        head_size, rotary_size: D and R.
        norm: whether heads of q and k are normalised.
    """

    kind: str
    storage: str
    head_size: int
    rotary_size: int
    norm: bool

    @property
    def lanes(self) -> int:
        """The most that divide a head's parts, the same on every machine; 0 for none."""
        parts = (self.head_size, self.rotary_size // 2)
        return next((lanes for lanes in (16, 8, 4) if not any(part % lanes for part in parts)), 0)

    @property
    def itemsize(self) -> int:
        return 4 if self.kind == "fp32" else 2

    @property
    def heads_per_piece(self) -> int:
        return max(1, PIECE_NUMBERS // self.head_size)


def emit(module: ir.Module, variant: Variant) -> None:
    """The kernel "rope_kv_write" of a variant."""

    def count(e: Emit, args: Value) -> Value:
        return e.b.mul(word(e, word(e, args, ROWS_AT), 0), _ranges(e, args, variant))

    pieces_function(module, "rope_kv_write", count)
    with function(module, "rope_kv_write", 2) as (e, (args, piece)):
        b = e.b
        ranges = _ranges(e, args, variant)
        row = b.sdiv(piece, ranges)
        first = b.mul(b.sub(piece, b.mul(row, ranges)), const(variant.heads_per_piece))
        _Row(e, variant, args, row).emit(first, b.add(first, const(variant.heads_per_piece)))


def _num_heads(e: Emit, args: Value) -> Value:
    """Of q, k and v together."""
    return e.b.add(word(e, args, NUM_HEADS), e.b.shl(word(e, args, KV_HEADS), const(1)))


def _ranges(e: Emit, args: Value, variant: Variant) -> Value:
    per = variant.heads_per_piece
    return e.b.sdiv(e.b.add(_num_heads(e, args), const(per - 1)), const(per))


class _Row:
    """The heads of a token."""

    def __init__(self, e: Emit, variant: Variant, args: Value, row: Value) -> None:
        b = e.b
        self.e, self.variant, self.lanes = e, variant, variant.lanes
        self.words = [word(e, args, i) for i in range(EPS + 1)]
        self.eps = e.load(F32, e.at(args, 8 * EPS), 8)
        self.qkv = b.add(self.words[QKV], b.mul(row, self.words[QKV_STRIDE]))
        position, slot = (
            e.load(I64, b.add(word(e, self.words[at], 0), b.shl(row, const(3))), 8)
            for at in (POSITIONS_AT, SLOTS_AT)
        )
        self.angles = b.add(self.words[COS_SIN], b.mul(position, const(4 * variant.rotary_size)))
        self.shift = self.words[BLOCK_SHIFT]
        block = b.ashr(slot, self.shift)
        offset = b.sub(slot, b.shl(block, self.shift))
        self.first_entry = b.add(b.shl(b.mul(block, self.words[KV_HEADS]), self.shift), offset)

    def emit(self, start: Value, stop: Value) -> None:
        """The heads from start to stop, as far as there are any."""
        e, b = self.e, self.e.b
        keys = self.words[NUM_HEADS]
        values = b.add(keys, self.words[KV_HEADS])
        end = b.add(values, self.words[KV_HEADS])
        with e.each(start, e.smaller(stop, keys)) as head:
            at = self._head(head)
            parts = self._turned(self._read(at, Q_WEIGHT))
            # Without a norm what is not rotated lies there already.
            changed = self.variant.head_size if self.variant.norm else self.variant.rotary_size
            self._write(parts[: changed // self.lanes], at)
        with e.each(self._larger(start, keys), e.smaller(stop, values)) as head:
            parts = self._turned(self._read(self._head(head), K_WEIGHT))
            self._store(parts, KEYS, KEY_SCALES, b.sub(head, keys))
        with e.each(self._larger(start, values), e.smaller(stop, end)) as head:
            self._store(self._read(self._head(head), None), VALUES, VALUE_SCALES, b.sub(head, values))

    def _larger(self, x: Value, y: Value) -> Value:
        return self.e.b.select(self.e.b.icmp_signed(">", x, y), x, y)

    def _head(self, head: Value) -> Value:
        size = self.variant.head_size * self.variant.itemsize
        return self.e.b.add(self.qkv, self.e.b.mul(head, const(size)))

    def _offsets(self) -> list[int]:
        """Of the vectors of a head."""
        return [i * self.variant.itemsize for i in range(0, self.variant.head_size, self.lanes)]

    def _read(self, at: Value, weight: int | None) -> list[Value]:
        """A head as float32 vectors; of a variant with a norm normalised, if there is a weight at a word."""
        e, b, kind = self.e, self.e.b, self.variant.kind
        offsets = self._offsets()
        parts = [e.load_floats(kind, e.at(at, offset), self.lanes) for offset in offsets]
        if weight is None or not self.variant.norm:
            return parts
        sums = [b.fmul(part, part) for part in parts[:PARTIAL_SUMS]]
        for i, part in enumerate(parts[PARTIAL_SUMS:]):
            sums[i % PARTIAL_SUMS] = fma(e, part, part, sums[i % PARTIAL_SUMS])
        total = reduce(b.fadd, sums)
        inverse = inverse_rms(e, sum_lanes(e, total), const(self.variant.head_size), self.eps)
        inverse = e.broadcast(inverse, self.lanes)
        weights = (e.load_floats(kind, e.at(self.words[weight], offset), self.lanes) for offset in offsets)
        return [
            e.round_to(kind, normed(e, kind, part, inverse, factor))
            for part, factor in zip(parts, weights, strict=True)
        ]

    def _turned(self, parts: list[Value]) -> list[Value]:
        """The pairs of a head turned; what was turned is not rounded."""
        e, b = self.e, self.e.b
        half = self.variant.rotary_size // 2
        count, floats = half // self.lanes, ir.VectorType(F32, self.lanes)
        parts = list(parts)
        for i in range(count):
            cos, sin = (
                e.load(floats, e.at(self.angles, 4 * (start + i * self.lanes)), 4) for start in (0, half)
            )
            first, second = parts[i], parts[i + count]
            parts[i] = b.fsub(b.fmul(first, cos), b.fmul(second, sin))
            parts[i + count] = b.fadd(b.fmul(second, cos), b.fmul(first, sin))
        return parts

    def _write(self, parts: list[Value], at: Value) -> None:
        """A head, or the start of one, rounded."""
        for part, offset in zip(parts, self._offsets(), strict=False):
            self.e.store_floats(self.variant.kind, part, self.e.at(at, offset))

    def _store(self, parts: list[Value], cache: int, scales: int, head: Value) -> None:
        """A head's entry of the cache."""
        e, b, variant = self.e, self.e.b, self.variant
        entry = b.add(self.first_entry, b.shl(head, self.shift))
        if variant.storage == variant.kind:
            size = variant.head_size * variant.itemsize
            self._write(parts, b.add(self.words[cache], b.mul(entry, const(size))))
            return
        rounded = [e.round_to(variant.kind, part) for part in parts]
        at = b.add(self.words[cache], b.mul(entry, const(variant.head_size)))
        store_8_bits(e, variant.storage, rounded, at, b.add(self.words[scales], b.shl(entry, const(2))))
