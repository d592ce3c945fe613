"""The kernel of a product of int8 activations with records of 4-bit or 8-bit weights: how the work is cut.

A piece is a panel for one chunk of rows. Every output is summed by one thread, in the order of k, by operations that
do not depend on the number of rows or on the piece: a row's result is the same bits in any batch and with any number of
threads.

Words: RECORDS [PANELS, GROUPS]; BIAS bfloat16 [PANELS * 64], or for 8-bit weights their scales, float32 of that size;
Y [rows, PANELS * 64], bfloat16, for 8-bit weights float32; Q, Q_SCALES, Q_SUMS, OUTLIERS: see `Quantised`; ROWS_AT:
the address of the number of rows.
"""

from llvmlite import ir

from llmcli_kernels.int4_linear.native.block import TILES, Block, Operands, emit_outliers
from llmcli_kernels.int4_linear.native.quantise import OUTLIER_WORDS, Quantised
from llmcli_kernels.int4_linear.native.records import GROUP, PANEL, Layout
from llmcli_kernels.native.emit import F32, I8, I32, Emit, Value, const
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import Stage, function, pieces_function, word, words
from llmcli_kernels.native.machine import Machine

MOST_CHUNK = 192  # activation rows of one pass over the weights: their sums lie on the stack (48 KiB)
FEW_ROWS, FEW_AHEAD, AHEAD = (
    2,
    1,
    2,
)  # records that are prefetched, up to so many rows and with more: some 300 ns
# Added to the number of rows, names a block that prefetches half a record; added twice, a whole one.
PREFETCHING = 8

# Words; THREADS is a guess of how far the next panel of a thread is.
(RECORDS, BIAS, Y, Q, Q_SCALES, Q_SUMS, OUTLIERS, ROWS_AT, GROUPS, PANELS, THREADS) = range(11)


def product_stage(
    host: Host,
    layout: Layout,
    records: int,
    bias: int,
    y: int,
    quantised: Quantised,
    rows_at: int,
    panels: int,
    groups: int,
) -> Stage:
    """A product over all of `quantised`; records, bias, y and rows_at are addresses."""
    group = quantised.activation_group
    variant = f"product {layout.bits} {layout.group_size} {group}"
    compiled = host.compile(variant, lambda module, machine: emit(module, machine, layout, group))
    args = words(
        *(records, bias, y),
        *(quantised.q.data_ptr(), quantised.scales.data_ptr(), quantised.sums.data_ptr()),
        quantised.outliers.data_ptr(),
        *(rows_at, groups, panels, host.team.num_threads()),
    )
    return Stage(compiled.kernel("product"), args)


def emit(module: ir.Module, machine: Machine, layout: Layout, activation_group: int) -> None:
    """The kernel "product"."""
    _Product(module, machine, layout, activation_group).emit()


class _Product:
    """Emits the kernel; `item_bytes` is what one (row, group) has of Q_SCALES and of Q_SUMS."""

    def __init__(self, module: ir.Module, machine: Machine, layout: Layout, activation_group: int) -> None:
        self.module, self.machine, self.layout = module, machine, layout
        self.activation_group = activation_group
        self.item_bytes = 4 * GROUP // activation_group
        self.tiles = TILES[machine.name]

    def emit(self) -> None:
        blocks = self._blocks()
        pieces_function(self.module, "product", self._count)
        with function(self.module, "product", 2) as (e, (args, piece)):
            b = e.b
            panels, chunk = word(e, args, PANELS), self._chunk(e, args)
            scratch = b.alloca(I8, MOST_CHUNK * PANEL * 4 + 64)
            out = b.and_(b.add(b.ptrtoint(scratch, chunk.type), const(63)), const(-64))
            first_row, panel = b.mul(b.sdiv(piece, panels), chunk), b.srem(piece, panels)
            num_rows = b.sub(e.smaller(b.add(first_row, chunk), self._rows(e, args)), first_row)
            per_block = e.divide_up(num_rows, e.divide_up(num_rows, const(max(self.tiles))))
            self._start_sums(e, args, panel, out, num_rows)
            with e.each(const(0), word(e, args, GROUPS)) as group:
                self._add_record(e, args, panel, group, out, first_row, num_rows, per_block, blocks)
            self._finish(e, args, panel, out, first_row, num_rows)

    def _rows(self, e: Emit, args: Value) -> Value:
        return word(e, word(e, args, ROWS_AT), 0)

    def _num_chunks(self, e: Emit, args: Value) -> Value:
        return e.divide_up(self._rows(e, args), const(MOST_CHUNK))

    def _chunk(self, e: Emit, args: Value) -> Value:
        """Rows of a chunk; only asked for where there are rows."""
        return e.divide_up(self._rows(e, args), self._num_chunks(e, args))

    def _count(self, e: Emit, args: Value) -> Value:
        return e.b.mul(self._num_chunks(e, args), word(e, args, PANELS))

    def _blocks(self) -> dict[int, ir.Function]:
        """A function for each number of rows, plus PREFETCHING times the halves of a record that it prefetches.

        The hardware's prefetcher looks a few lines ahead, and not into the next page.
        """
        machine, forms = self.machine, {}
        outliers = emit_outliers(self.module, machine, self.layout)
        for rows, tiles in self.tiles.items():
            for halves in (0, 1, 2):
                with function(self.module, f"block{rows}_{halves}", 7, internal=True) as (e, args):
                    operands = Operands(*args)
                    block = Block(e, machine, self.layout, operands, rows, self.activation_group)
                    if halves:
                        self._prefetch_scales(e, operands.later)
                    with e.each(const(0), const(PANEL), tiles * machine.lanes) as lane:
                        block.emit(lane, tiles, halves)
                    _add_outliers(e, outliers, operands, rows)
                forms[rows + halves * PREFETCHING] = e.function
        return forms

    def _prefetch_scales(self, e: Emit, record: Value) -> None:
        """Of a record, and its zeros."""
        for line in range(self.layout.weight_bytes, self.layout.nbytes, 64):
            e.prefetch(e.at(record, line))

    def _start_sums(self, e: Emit, args: Value, panel: Value, out: Value, num_rows: Value) -> None:
        """The sums start as the bias, or as zero."""
        b, lanes = e.b, self.machine.lanes
        tiles = range(0, PANEL, lanes)
        if self.layout.bits == 4:
            bias = b.add(word(e, args, BIAS), b.mul(panel, const(2 * PANEL)))
            values = [e.load_floats("bf16", e.at(bias, 2 * i), lanes) for i in tiles]
        else:
            values = [ir.Constant(ir.VectorType(F32, lanes), [0.0] * lanes) for _ in tiles]
        with e.each(const(0), num_rows) as row:
            to = b.add(out, b.mul(row, const(4 * PANEL)))
            for i, value in zip(tiles, values, strict=True):
                e.store(value, e.at(to, 4 * i), 4 * lanes)

    def _add_record(
        self,
        e: Emit,
        args: Value,
        panel: Value,
        group: Value,
        out: Value,
        first_row: Value,
        num_rows: Value,
        per_block: Value,
        blocks: dict[int, ir.Function],
    ) -> None:
        """The product with one record, in blocks of `per_block` rows, the last of what is left."""
        b = e.b
        rows, groups = self._rows(e, args), word(e, args, GROUPS)
        index = b.add(b.mul(panel, groups), group)
        record = b.add(word(e, args, RECORDS), b.mul(index, const(self.layout.nbytes)))
        q, scales, sums = (word(e, args, i) for i in (Q, Q_SCALES, Q_SUMS))
        later = self._later(e, args, record, group)
        with e.each(const(0), num_rows, per_block) as start:
            item = b.add(b.mul(group, rows), b.add(first_row, start))
            second_half = b.icmp_signed("!=", start, const(0))
            operands = [
                record,
                b.add(q, b.mul(item, const(GROUP))),
                b.add(scales, b.mul(item, const(self.item_bytes))),
                b.add(sums, b.mul(item, const(self.item_bytes))),
                b.add(word(e, args, OUTLIERS), b.mul(item, const(4 * OUTLIER_WORDS))),
                b.add(out, b.mul(start, const(4 * PANEL))),
                b.add(later, b.select(second_half, const(self.layout.weight_bytes // 2), const(0))),
            ]
            height = e.smaller(per_block, b.sub(num_rows, start))
            form = b.add(height, self._prefetching(e, start, num_rows, per_block))
            self._call_form(e, form, operands, blocks)

    def _later(self, e: Emit, args: Value, record: Value, group: Value) -> Value:
        """The record to prefetch: after the last ones of a panel come the first ones of this thread's next panel."""
        b, groups = e.b, word(e, args, GROUPS)
        few = b.icmp_signed("<=", self._rows(e, args), const(FEW_ROWS))
        ahead = b.select(few, const(FEW_AHEAD), const(AHEAD))
        beyond = b.icmp_signed(">=", b.add(group, ahead), groups)
        others = b.mul(groups, b.sub(word(e, args, THREADS), const(1)))
        skipped = b.select(beyond, others, const(0))
        return b.add(record, b.mul(b.add(ahead, skipped), const(self.layout.nbytes)))

    def _prefetching(self, e: Emit, start: Value, num_rows: Value, per_block: Value) -> Value:
        """Added to a form: an only block asks for a whole record, the first two of several for half of it each."""
        b, none, half, whole = e.b, const(0), const(PREFETCHING), const(2 * PREFETCHING)
        if not self.machine.vnni:
            return b.select(b.icmp_signed("==", start, const(0)), whole, none)
        share = b.select(b.icmp_signed("==", num_rows, per_block), whole, half)
        return b.select(b.icmp_signed("<=", start, per_block), share, none)

    def _call_form(self, e: Emit, form: Value, operands: list[Value], blocks: dict[int, ir.Function]) -> None:
        end, none = e.block("done"), e.block("none")
        switch = e.b.switch(form, none)
        for number, block in blocks.items():
            target = e.block(f"form{number}")
            switch.add_case(const(number), target)
            e.b.position_at_end(target)
            e.b.call(block, operands)
            e.b.branch(end)
        e.b.position_at_end(none)
        e.b.unreachable()
        e.b.position_at_end(end)

    def _finish(
        self, e: Emit, args: Value, panel: Value, out: Value, first_row: Value, num_rows: Value
    ) -> None:
        """The sums to Y: as bfloat16, or times the scales of 8-bit weights as float32."""
        b, lanes, eight = e.b, self.machine.lanes, self.layout.bits == 8
        kind, size = ("fp32", 4) if eight else ("bf16", 2)
        width = b.mul(word(e, args, PANELS), const(size * PANEL))
        corner = b.add(word(e, args, Y), b.mul(panel, const(size * PANEL)))
        scales = b.add(word(e, args, BIAS), b.mul(panel, const(4 * PANEL)))
        with e.each(const(0), num_rows) as row:
            to = b.add(corner, b.mul(b.add(first_row, row), width))
            source = b.add(out, b.mul(row, const(4 * PANEL)))
            for i in range(0, PANEL, lanes):
                values = e.load_floats("fp32", e.at(source, 4 * i), lanes)
                if eight:
                    values = b.fmul(values, e.load_floats("fp32", e.at(scales, 4 * i), lanes))
                e.store_floats(kind, values, e.at(to, size * i))


def _add_outliers(e: Emit, outliers: ir.Function, operands: Operands, rows: int) -> None:
    for m in range(rows):
        found = e.at(operands.outliers, 4 * OUTLIER_WORDS * m)
        with e.b.if_then(e.b.icmp_unsigned(">", e.load(I32, found, 4), ir.Constant(I32, 0)), likely=False):
            e.b.call(outliers, [operands.record, found, e.at(operands.out, 4 * PANEL * m)])
