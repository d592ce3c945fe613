"""What the products of attention take, brought from tensors into scratch memory: queries, keys, values and scales.

Knows pages and formats, not softmax. Called by `attend`. Functions of the module take the address of the scratch
memory, and of the strip's place in it.
"""

from llvmlite import ir

from llmcli_kernels.native.emit import F16, F32, I8, I16, I32, I64, Emit, Value, const, splat
from llmcli_kernels.native.kernel import function
from llmcli_kernels.native.math import fma
from llmcli_kernels.native.transpose import shuffle, transpose_lanes
from llmcli_kernels.paged_attention.native.ahead import Ahead
from llmcli_kernels.paged_attention.native.arithmetic import (
    FLOAT_INF_BITS,
    INT16_LARGEST,
    INT16_ROUNDER,
)
from llmcli_kernels.paged_attention.native.form import RUN, Form

SMALLEST_PEAK_BITS = (127 - 100) << 23  # 2^-100: what is all zero must not divide by zero
FLOAT8_FACTOR = 2.0**8  # between a float8 and the float16 with its bits


class Operands:
    """Emits the functions of one form into a module; they are attributes of their names."""

    def __init__(self, module: ir.Module, form: Form) -> None:
        self.form, self.scratch, self.ahead = form, form.scratch, Ahead(form)
        self.floats, self.ints = ir.VectorType(F32, form.lanes), ir.VectorType(I32, form.lanes)
        self.query = self._query(module)
        self.locate = self._locate(module)
        self.keys = self._keys(module)
        self.values = self._values_in_pairs(module) if form.pairs else self._values(module)

    def _query(self, module: ir.Module) -> ir.Function:
        """query(scratch, row, source): a head of a query becomes a row of words."""
        form, width = self.form, 4 * self.form.lanes
        with function(module, "query", 3, internal=True) as (e, (scratch, row, source)):
            b = e.b
            words = b.add(e.at(scratch, self.scratch.query), b.mul(row, const(4 * form.key_units)))
            if form.arithmetic == "int16":
                scale = b.add(e.at(scratch, self.scratch.query_scales), b.shl(row, const(2)))
                self._integer_query(e, source, words, scale)
            elif form.arithmetic == "bf16":
                for start in range(0, 2 * form.head_size, width):
                    count = min(width, 2 * form.head_size - start) // 4
                    e.store(e.load(ir.VectorType(I32, count), e.at(source, start), 2), e.at(words, start), 4)
            else:
                for i in range(form.vectors):
                    at = e.at(source, i * form.lanes * form.itemsize)
                    e.store(e.load_floats(form.kind, at, form.lanes), e.at(words, i * width), 4)
        return e.function

    def _integer_query(self, e: Emit, source: Value, words: Value, scale_at: Value) -> None:
        """Rounded to int16 with one scale a row, NaN for one that is not finite."""
        b, form, lanes = e.b, self.form, self.form.lanes
        parts = [
            e.load_floats(form.kind, e.at(source, i * lanes * form.itemsize), lanes)
            for i in range(form.vectors)
        ]
        peak = self._peak(e, parts)
        finite = b.icmp_unsigned("<", peak, ir.Constant(I32, FLOAT_INF_BITS))
        peak = e.call("llvm.umax.i32", I32, peak, ir.Constant(I32, SMALLEST_PEAK_BITS))
        peak = b.select(finite, b.bitcast(peak, F32), ir.Constant(F32, float("nan")))
        e.store(b.fdiv(peak, ir.Constant(F32, INT16_LARGEST)), scale_at, 4)
        inverse = e.broadcast(b.fdiv(ir.Constant(F32, INT16_LARGEST), peak), lanes)
        # Of four neighbours the even ones are a pair, and the odd ones.
        first, second = ([4 * i + j + k for i in range(lanes // 4) for k in (0, 1)] for j in (0, 2))
        for i, part in enumerate(parts):
            bits = b.bitcast(fma(e, part, inverse, splat(F32, INT16_ROUNDER, lanes)), self.ints)
            low, high = shuffle(e, bits, bits, first), shuffle(e, bits, bits, second)
            e.store(_pair(e, low, high), e.at(words, i * 2 * lanes), 4)

    def _peak(self, e: Emit, parts: list[Value]) -> Value:
        """The bits of the largest magnitude; a NaN is larger than all numbers."""
        sizes = [
            e.b.and_(e.b.bitcast(part, self.ints), splat(I32, 0x7FFFFFFF, self.form.lanes)) for part in parts
        ]
        size = sizes[0]
        for other in sizes[1:]:
            size = e.call(f"llvm.umax.v{self.form.lanes}i32", self.ints, size, other)
        return e.call(f"llvm.vector.reduce.umax.v{self.form.lanes}i32", I32, size)

    def _locate(self, module: ir.Module) -> ir.Function:
        """locate(place, table, base, start, end, shift, heads, head, key_scales, value_scales).

        Fills in where the rows of the strip from `base` on are, with the scales. Positions before `start` or from `end`
        on, which nobody sees, take the nearest row that somebody does.
        """
        with function(module, "locate", 10, internal=True) as (e, args):
            place, table, base, start, end, shift, heads, head, *scales = args
            b, strip = e.b, self.form.strip
            mask = b.sub(b.shl(const(1), shift), const(1))

            def index(position: Value) -> Value:
                """Of the position's row, in the whole cache."""
                block = e.load(I64, b.add(table, b.shl(b.lshr(position, shift), const(3))), 8)
                page = b.add(b.mul(block, heads), head)
                return b.add(b.shl(page, shift), b.and_(position, mask))

            inside = b.and_(b.icmp_signed(">=", base, start), b.icmp_signed("<=", e.at(base, strip), end))
            with b.if_else(inside) as (whole, edge):
                with whole, e.each(const(0), const(strip), RUN) as i:
                    self._note(e, place, i, index(b.add(base, i)), RUN, scales)
                with edge, e.each(const(0), const(strip)) as i:
                    position = b.add(base, i)
                    position = b.select(b.icmp_signed("<", position, start), start, position)
                    position = e.smaller(position, b.sub(end, const(1)))
                    self._note(e, place, i, index(position), 1, scales)
            if self.form.arithmetic == "int16":
                self._shares(e, place)
        return e.function

    def _note(self, e: Emit, place: Value, i: Value, index: Value, count: int, scales: list[Value]) -> None:
        """Offsets and scales of `count` positions from the i-th of the strip on; rows from `index` on."""
        b, form = e.b, self.form
        first = b.mul(index, const(form.row_bytes))
        for k in range(count):
            to = b.add(e.at(place, self.scratch.offsets + 8 * k), b.shl(i, const(3)))
            e.store(e.at(first, k * form.row_bytes), to, 8)
        if form.quantized:
            offsets = (self.scratch.key_scales, self.scratch.value_scales)
            for source, offset in zip(scales, offsets, strict=True):
                values = e.load(ir.VectorType(F32, count), b.add(source, b.shl(index, const(2))), 4)
                if form.storage == "fp8":
                    values = b.fmul(values, splat(F32, FLOAT8_FACTOR, count))
                e.store(values, b.add(e.at(place, offset), b.shl(i, const(2))), 4)

    def _shares(self, e: Emit, place: Value) -> None:
        """The scales of values as shares of the largest of the strip, times int16's largest."""
        b, lanes = e.b, self.form.lanes
        places = [e.at(place, self.scratch.value_scales + 4 * i) for i in range(0, self.form.strip, lanes)]
        scales = [e.load(self.floats, at, 4) for at in places]
        peak = b.bitcast(self._peak(e, scales), F32)
        largest = ir.Constant(F32, INT16_LARGEST)
        e.store(b.fdiv(peak, largest), e.at(place, self.scratch.value_peak), 4)
        some = b.fcmp_ordered(">", peak, ir.Constant(F32, 0.0))
        inverse = b.select(some, b.fdiv(ir.Constant(F32, 1.0), peak), ir.Constant(F32, 0.0))
        for at, scale in zip(places, scales, strict=True):
            share = b.fmul(scale, e.broadcast(inverse, lanes))
            e.store(b.fmul(share, splat(F32, INT16_LARGEST, lanes)), at, 4)

    def _keys(self, module: ir.Module) -> ir.Function:
        """keys(scratch, place, next, early, address): the strip's keys, transposed.

        Of the next place's keys so many lines as `early` says are prefetched.
        """
        form, lanes = self.form, self.form.lanes
        words = form.row_bytes // 4
        whole = words // lanes * lanes
        with function(module, "keys", 5, internal=True) as (e, (scratch, place, following, early, keys)):
            blocks = -(-words // lanes)
            share = self.ahead.share(self.ahead.lines // 2, form.strip // lanes * blocks)

            def prefetch(first: Value, block: Value) -> None:
                turn = e.b.add(e.b.mul(e.b.sdiv(first, const(lanes)), const(blocks)), block)
                self.ahead.ask(e, following, keys, e.b.mul(turn, const(share)), early, share)

            with e.each(const(0), const(form.strip), lanes) as first:
                at = e.b.add(e.at(place, self.scratch.offsets), e.b.shl(first, const(3)))
                rows = [e.b.add(keys, e.load(I64, e.at(at, 8 * i), 8)) for i in range(lanes)]
                to = e.b.add(e.at(scratch, self.scratch.keys), e.b.shl(first, const(2)))
                with e.each(const(0), const(whole), lanes) as word:
                    prefetch(first, e.b.sdiv(word, const(lanes)))
                    self._transpose(e, rows, word, lanes, to)
                if words > whole:
                    prefetch(first, const(blocks - 1))
                    self._transpose(e, rows, const(whole), words - whole, to)
        return e.function

    def _transpose(self, e: Emit, rows: list[Value], word: Value, count: int, to: Value) -> None:
        """`count` words of each row, from `word` on, to as many times `units` rows of scratch memory."""
        b, lanes = e.b, self.form.lanes
        at = b.shl(word, const(2))
        parts = [e.load(ir.VectorType(I32, count), b.add(row, at), 1) for row in rows]
        if count < lanes:
            order = [i % count for i in range(lanes)]
            parts = [shuffle(e, part, part, order) for part in parts]
        columns = [self._units(e, column) for column in transpose_lanes(e, parts)[:count]]
        units, stride = len(columns[0]), 4 * self.form.strip
        to = b.add(to, b.mul(word, const(units * stride)))
        for i, unit in enumerate(unit for column in columns for unit in column):
            e.store(unit, e.at(to, i * stride), 4 * lanes)

    def _units(self, e: Emit, words: Value) -> list[Value]:
        """Operands of products from 32 bits as they are stored, in the order of the query's words."""
        b, storage, lanes = e.b, self.form.storage, self.form.lanes

        def number(value: int) -> ir.Constant:
            return splat(I32, value, lanes)

        if storage == "fp32" or self.form.arithmetic == "bf16":
            return [words]
        if self.form.arithmetic == "int16":
            shorts, eight = ir.VectorType(I16, 2 * lanes), splat(I16, 8, 2 * lanes)
            odd = b.ashr(b.bitcast(words, shorts), eight)
            even = b.ashr(b.shl(b.bitcast(words, shorts), eight), eight)
            return [b.bitcast(even, self.ints), b.bitcast(odd, self.ints)]
        if storage == "bf16":
            return [b.shl(words, number(16)), b.and_(words, number(0xFFFF0000))]
        if storage == "fp16":
            halves = [words, b.lshr(words, number(16))]
            return [self._from_half(e, b.trunc(half, ir.VectorType(I16, lanes))) for half in halves]
        upper = [b.shl(words, number(24 - 8 * i)) if i < 3 else words for i in range(4)]
        if storage == "int8":
            return [b.sitofp(b.ashr(part, number(24)), self.floats) for part in upper]
        parts = [b.trunc(b.ashr(part, number(17)), ir.VectorType(I16, lanes)) for part in upper]
        return [self._from_half(e, b.and_(part, splat(I16, 0xBF80, lanes))) for part in parts]

    def _from_half(self, e: Emit, bits: Value) -> Value:
        lanes = bits.type.count
        return e.b.fpext(e.b.bitcast(bits, ir.VectorType(F16, lanes)), ir.VectorType(F32, lanes))

    def _values(self, module: ir.Module) -> ir.Function:
        """values(scratch, place, next, early, address): the strip's values as float32, prefetching as `keys`."""
        form, lanes = self.form, self.form.lanes
        with function(module, "values", 5, internal=True) as (e, (scratch, place, following, early, values)):
            share = self.ahead.share(self.ahead.lines // 2, form.strip)
            with e.each(const(0), const(form.strip)) as i:
                self.ahead.ask(e, following, values, e.b.mul(i, const(share)), early, share)
                at = e.b.add(e.at(place, self.scratch.offsets), e.b.shl(i, const(3)))
                row = e.b.add(values, e.load(I64, at, 8))
                to = e.b.add(e.at(scratch, self.scratch.values), e.b.mul(i, const(4 * form.head_size)))
                for k in range(0, form.head_size, lanes):
                    source = e.at(row, k * form.row_bytes // form.head_size)
                    e.store(self._widened(e, source), e.at(to, 4 * k), 4)
        return e.function

    def _widened(self, e: Emit, address: Value) -> Value:
        b, storage, lanes = e.b, self.form.storage, self.form.lanes
        if not self.form.quantized:
            return e.load_floats(storage, address, lanes)
        stored = e.load(ir.VectorType(I8, lanes), address, 1)
        if storage == "int8":
            return b.sitofp(stored, self.floats)
        bits = b.shl(b.sext(stored, ir.VectorType(I16, lanes)), splat(I16, 7, lanes))
        return self._from_half(e, b.and_(bits, splat(I16, 0xBFFF, lanes)))

    def _values_in_pairs(self, module: ir.Module) -> ir.Function:
        """values(scratch, place, next, early, address): the strip's values, prefetching as `keys`.

        Those one register of positions apart are side by side.
        """
        form, lanes = self.form, self.form.lanes
        with function(module, "values", 5, internal=True) as (e, (scratch, place, following, early, values)):
            b, share = e.b, self.ahead.share(self.ahead.lines // 2, form.strip // 2)
            with e.each(const(0), const(form.strip), 2 * lanes) as start:
                first = b.add(e.at(place, self.scratch.offsets), b.shl(start, const(3)))
                to = b.add(e.at(scratch, self.scratch.values), b.mul(start, const(2 * form.head_size)))
                with e.each(const(0), const(lanes)) as i:
                    line = b.mul(b.add(b.lshr(start, const(1)), i), const(share))
                    self.ahead.ask(e, following, values, line, early, share)
                    at = b.add(first, b.shl(i, const(3)))
                    rows = [b.add(values, e.load(I64, e.at(at, 8 * k * lanes), 8)) for k in (0, 1)]
                    self._interleave(e, rows, b.add(to, b.mul(i, const(4 * form.head_size))))
        return e.function

    def _interleave(self, e: Emit, rows: list[Value], to: Value) -> None:
        b, size, lanes = e.b, self.form.head_size, self.form.lanes
        element = I8 if self.form.storage == "int8" else I16
        for start in range(0, size, 2 * lanes):
            count = min(2 * lanes, size - start)
            at = start * self.form.row_bytes // size
            parts = [e.load(ir.VectorType(element, count), e.at(row, at), 1) for row in rows]
            for k in range(0, count, lanes):
                order = [i + side for i in range(k, k + lanes) for side in (0, count)]
                pair = (
                    b.sext(shuffle(e, *parts, order), ir.VectorType(I16, 2 * lanes))
                    if element == I8
                    else (shuffle(e, *parts, order))
                )
                e.store(b.bitcast(pair, self.ints), e.at(to, 4 * (start + k)), 4)


def _pair(e: Emit, low: Value, high: Value) -> Value:
    """The low 16 bits of both as one word."""
    n = low.type.count
    return e.b.or_(e.b.and_(low, splat(I32, 0xFFFF, n)), e.b.shl(high, splat(I32, 16, n)))
