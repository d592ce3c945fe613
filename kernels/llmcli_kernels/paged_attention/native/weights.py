"""The softmax of a strip: scores become weights, the running maxima and sums of weights go on (online softmax).

Milakov and Gimelshein, arXiv 1805.02867. Called by `attend`.
"""

from llvmlite import ir

from llmcli_kernels.native.emit import F32, I32, Emit, Value, const, splat
from llmcli_kernels.native.kernel import function
from llmcli_kernels.native.math import fma, larger, largest_lane
from llmcli_kernels.paged_attention.native.arithmetic import (
    EXACT,
    INT16_ROUNDER,
    ROUGH,
    power_of_two,
)
from llmcli_kernels.paged_attention.native.form import Form

LEAST = -3.0e38  # below all scores: what a maximum starts at, so that differences are never inf - inf


class Weights:
    """Emits the functions of one form into a module.

    Attributes:
        open: open(scratch, place, rows, factor): every row sees the whole strip. `factor` is the address of a float32
            that scores are multiplied by.
        masked: masked(scratch, place, rows, factor, group, distance, window): `group` neighbouring rows are heads of
            one query; the first query is `distance` positions after the strip's first and each sees `window` of them.
    """

    def __init__(self, module: ir.Module, form: Form) -> None:
        self.form, self.scratch = form, form.scratch
        self.floats, self.ints = ir.VectorType(F32, form.lanes), ir.VectorType(I32, form.lanes)
        self.coefficients = ROUGH if form.pairs else EXACT
        with function(module, "open", 4, internal=True) as (e, args):
            scratch, place, rows, factor = args
            with e.each(const(0), rows) as row:
                self._row(e, scratch, place, row, factor, None)
        self.open = e.function
        with function(module, "masked", 7, internal=True) as (e, args):
            scratch, place, rows, factor, group, distance, window = args
            with e.each(const(0), rows) as row:
                distances = e.b.add(distance, e.b.sdiv(row, group))
                self._row(e, scratch, place, row, factor, (distances, window))
        self.masked = e.function

    def _row(
        self,
        e: Emit,
        scratch: Value,
        place: Value,
        row: Value,
        factor: Value,
        mask: tuple[Value, Value] | None,
    ) -> None:
        b, form = e.b, self.form
        at = b.add(e.at(scratch, self.scratch.scores), b.mul(row, const(4 * form.strip)))
        at_scalar = b.shl(row, const(2))

        def scalar(offset: int) -> Value:
            return b.add(e.at(scratch, offset), at_scalar)

        scores = self._scores(e, place, at, factor, scalar(self.scratch.query_scales))
        if mask:
            scores = self._hidden(e, scores, *mask)
        before = e.broadcast(e.load(F32, scalar(self.scratch.maxima), 4), form.lanes)
        peak = largest_lane(e, e.pairwise(lambda x, y: larger(e, x, y), scores))
        after = larger(e, before, peak)
        fade = power_of_two(e, b.fsub(before, after), self.coefficients)
        # int16 has no room for weights far below the largest of the strip; so they are relative to that.
        origin = larger(e, peak, splat(F32, LEAST, form.lanes)) if form.arithmetic == "int16" else after
        weights = [power_of_two(e, b.fsub(score, origin), self.coefficients) for score in scores]
        if form.arithmetic == "bf16":
            weights = [self._to_bfloat16(e, weight) for weight in weights]
        total = e.pairwise(b.fadd, weights)
        if form.arithmetic == "int16":
            gain = power_of_two(e, b.fsub(origin, after), self.coefficients)
            total = b.fmul(total, gain)
            gain = b.fmul(_first(e, gain), e.load(F32, e.at(place, self.scratch.value_peak), 4))
            e.store(gain, scalar(self.scratch.gains), 4)
        sums = b.add(e.at(scratch, self.scratch.weights), b.mul(row, const(4 * form.lanes)))
        e.store(fma(e, e.load(self.floats, sums, 4), fade, total), sums, 4)
        e.store(_first(e, after), scalar(self.scratch.maxima), 4)
        e.store(_first(e, fade), scalar(self.scratch.fades), 4)
        self._store(e, place, weights, at)

    def _scores(self, e: Emit, place: Value, at: Value, factor: Value, query_scale: Value) -> list[Value]:
        """In base 2."""
        b, form, lanes = e.b, self.form, self.form.lanes
        scale = e.load(F32, factor, 4)
        if form.arithmetic == "int16":
            scale = b.fmul(scale, e.load(F32, query_scale, 4))
        scale = e.broadcast(scale, lanes)
        scores = []
        for i in range(0, form.strip, lanes):
            score = b.fmul(e.load(self.floats, e.at(at, 4 * i), 4), scale)
            if form.quantized:
                key_scale = e.load(self.floats, e.at(place, self.scratch.key_scales + 4 * i), 4)
                score = b.fmul(score, key_scale)
            scores.append(score)
        return scores

    def _hidden(self, e: Emit, scores: list[Value], distance: Value, window: Value) -> list[Value]:
        """-inf at positions that the row does not see."""
        b, lanes = e.b, self.form.lanes
        distance, window = (e.broadcast(b.trunc(x, I32), lanes) for x in (distance, window))
        hidden = []
        for i, score in enumerate(scores):
            place = ir.Constant(self.ints, list(range(i * lanes, (i + 1) * lanes)))
            # Unsigned: positions after the query's are far behind it.
            seen = b.icmp_unsigned("<", b.sub(distance, place), window)
            hidden.append(b.select(seen, score, splat(F32, float("-inf"), lanes)))
        return hidden

    def _to_bfloat16(self, e: Emit, weight: Value) -> Value:
        """Rounded to nearest, halves up: what is summed is what is multiplied."""
        b, lanes = e.b, self.form.lanes
        bits = b.add(b.bitcast(weight, self.ints), splat(I32, 0x8000, lanes))
        return b.bitcast(b.and_(bits, splat(I32, 0xFFFF0000, lanes)), self.floats)

    def _store(self, e: Emit, place: Value, weights: list[Value], at: Value) -> None:
        b, form, lanes = e.b, self.form, self.form.lanes
        if form.quantized:
            scales = [
                e.load(self.floats, e.at(place, self.scratch.value_scales + 4 * i), 4)
                for i in range(0, form.strip, lanes)
            ]
        if form.arithmetic == "float":
            words = (
                [b.fmul(*pair) for pair in zip(weights, scales, strict=True)] if form.quantized else weights
            )
        elif form.arithmetic == "bf16":
            bits = [b.bitcast(weight, self.ints) for weight in weights]
            words = [
                b.or_(b.lshr(x, splat(I32, 16, lanes)), y) for x, y in zip(bits[::2], bits[1::2], strict=True)
            ]
        else:
            rounder, low = splat(F32, INT16_ROUNDER, lanes), splat(I32, 0xFFFF, lanes)
            bits = [
                b.bitcast(fma(e, *pair, rounder), self.ints) for pair in zip(weights, scales, strict=True)
            ]
            words = [
                b.or_(b.and_(x, low), b.shl(y, splat(I32, 16, lanes)))
                for x, y in zip(bits[::2], bits[1::2], strict=True)
            ]
        for i, word in enumerate(words):
            e.store(word, e.at(at, 4 * lanes * i), 4)


def _first(e: Emit, vector: Value) -> Value:
    return e.b.extract_element(vector, ir.Constant(I32, 0))
