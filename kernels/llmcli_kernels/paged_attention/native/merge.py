"""The kernel that adds up the splits of a sequence, in the order of their positions."""

from llvmlite import ir

from llmcli_kernels.native.emit import F32, Emit, Value, const, splat
from llmcli_kernels.native.kernel import function, pieces_function, word
from llmcli_kernels.native.math import fma, larger
from llmcli_kernels.paged_attention.native import plan
from llmcli_kernels.paged_attention.native.arithmetic import EXACT, power_of_two
from llmcli_kernels.paged_attention.native.attend import GROUP, KV_HEADS, OUT, PLAN_AT
from llmcli_kernels.paged_attention.native.form import Form
from llmcli_kernels.paged_attention.native.weights import LEAST


def emit_merge(module: ir.Module, form: Form) -> None:
    """The kernel "merge": a piece is the rows of one sequence and one head of keys; the words are those of "attend"."""
    pieces_function(
        module,
        "merge",
        lambda e, args: e.b.mul(word(e, word(e, args, PLAN_AT), plan.NUM_MERGED), word(e, args, KV_HEADS)),
    )
    with function(module, "merge", 2) as (e, (args, piece)):
        b, block = e.b, word(e, args, PLAN_AT)
        kv_heads, group = word(e, args, KV_HEADS), word(e, args, GROUP)
        head = b.srem(piece, kv_heads)
        index = word(e, b.add(word(e, block, plan.MERGED), b.shl(b.sdiv(piece, kv_heads), const(3))), 0)
        record = b.add(word(e, block, plan.RECORDS), b.mul(index, const(8 * plan.RECORD_WORDS)))
        rows = b.mul(word(e, record, plan.QUERIES), group)
        first = b.add(word(e, record, plan.PARTIAL), b.mul(head, rows))
        partial = b.add(word(e, block, plan.PARTIALS), b.mul(first, const(form.partial_bytes)))
        distance = b.mul(b.mul(kv_heads, rows), const(form.partial_bytes))
        head_bytes = form.head_size * form.itemsize
        with e.each(const(0), rows) as row:
            query = b.add(word(e, record, plan.ROW), b.sdiv(row, group))
            heads = b.add(b.mul(b.add(b.mul(query, kv_heads), head), group), b.srem(row, group))
            to = b.add(word(e, args, OUT), b.mul(heads, const(head_bytes)))
            source = b.add(partial, b.mul(row, const(form.partial_bytes)))
            _Row(e, form, source, distance, word(e, record, plan.SPLITS)).emit(to)


class _Row:
    """One row of the output.

    Args:
        source: address of the first split's sums.
        distance: bytes from split to split.
    """

    def __init__(self, e: Emit, form: Form, source: Value, distance: Value, splits: Value) -> None:
        self.e, self.form = e, form
        self.source, self.distance, self.splits = source, distance, splits
        self.floats = ir.VectorType(F32, form.lanes)

    def emit(self, to: Value) -> None:
        """sum of sums 2^(m - M) over sum of weights 2^(m - M); M the largest m."""
        e, b, form = self.e, self.e.b, self.form
        with b.goto_entry_block():  # once a piece, not once a row
            peak, *sums = (b.alloca(self.floats) for _ in range(form.vectors + 2))  # the last: of weights
        b.store(splat(F32, LEAST, form.lanes), peak)
        for total in sums:
            b.store(splat(F32, 0.0, form.lanes), total)
        with e.each(const(0), self.splits) as split:
            b.store(larger(e, self._broadcast(split, 0), b.load(peak)), peak)
        with e.each(const(0), self.splits) as split:
            share = power_of_two(e, b.fsub(self._broadcast(split, 0), b.load(peak)), EXACT)
            parts = [
                e.load(self.floats, e.at(self._at(split), 4 * i * form.lanes), 4) for i in range(form.vectors)
            ]
            for total, part in zip(sums, [*parts, self._broadcast(split, 1)], strict=True):
                b.store(fma(e, part, share, b.load(total)), total)
        inverse = b.fdiv(splat(F32, 1.0, form.lanes), b.load(sums.pop()))
        for i, total in enumerate(sums):
            e.store_floats(
                form.kind, b.fmul(b.load(total), inverse), e.at(to, i * form.lanes * form.itemsize)
            )

    def _at(self, split: Value) -> Value:
        return self.e.b.add(self.source, self.e.b.mul(split, self.distance))

    def _broadcast(self, split: Value, i: int) -> Value:
        """The split's maximum, or its sum of weights."""
        at = self.e.at(self._at(split), 4 * (self.form.head_size + i))
        return self.e.broadcast(self.e.load(F32, at, 4), self.form.lanes)
