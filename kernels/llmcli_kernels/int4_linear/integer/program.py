"""The compiled program as LLVM IR: a product cut into pieces of work that any number of threads take.

Owns how work is cut; the arithmetic is `arithmetic`'s, threads are the caller's. The module has two functions, which
all threads call with the state of the product, first the one and when all are back the other:

    quantise(state)   pieces of the activations until none is left: PER (row, group) items each, NUM_QUANTISE pieces.
    product(state)    pieces of the output until none is left: RANGES ranges of panels for each CHUNK of rows,
                      NUM_PRODUCT pieces.

The state's other words (`slots`): X bfloat16 [ROWS, GROUPS * 128] contiguous; RECORDS [PANELS, GROUPS]; BIAS bfloat16
[PANELS * 64]; Y bfloat16 [ROWS, PANELS * 64]; room for int8 Q [GROUPS, ROWS, 128], SCALES float32 and SUMS int32
[GROUPS, ROWS, 128 / activation group].

Every output is summed by one thread, in the order of k, by operations that do not depend on ROWS or on the piece: a
row's result is the same bits in any batch and with any number of threads.
"""

from llvmlite import ir

from llmcli_kernels.int4_linear.integer import slots
from llmcli_kernels.int4_linear.integer.arithmetic import (
    MACHINES,
    Block,
    Machine,
    Operands,
    load_bfloat16,
    quantise,
    store_bfloat16,
)
from llmcli_kernels.int4_linear.integer.emit import F32, I8, I64, VOID, Emit, Value, const
from llmcli_kernels.int4_linear.integer.records import GROUP, PANEL, Layout

PREFETCHING = 8  # added to the number of rows, names the form of a block that prefetches


def build_program(machine_name: str, group_size: int, activation_group: int) -> str:
    """The text of the module.

    Args:
        machine_name: "avx512vnni" or "avx2".
        group_size: of the records: 32, 64 or 128.
        activation_group: neighbouring k that share an activation scale; divides group_size.
    """
    program = _Program(MACHINES[machine_name], Layout(group_size), activation_group)
    program.take_pieces("quantise", program.quantise_piece(), slots.NEXT_QUANTISE, slots.NUM_QUANTISE)
    program.take_pieces("product", program.product_piece(), slots.NEXT_PRODUCT, slots.NUM_PRODUCT)
    return str(program.module)


class _Program:
    def __init__(self, machine: Machine, layout: Layout, activation_group: int) -> None:
        self.module = ir.Module()
        self.machine, self.layout, self.activation_group = machine, layout, activation_group
        self.item_bytes = 4 * (GROUP // activation_group)  # of the scales, and of the sums, of a (row, group)

    def take_pieces(self, name: str, run: ir.Function, next_piece: int, num_pieces: int) -> None:
        """name(state): pieces until none is left. Threads meet in one atomic addition for each."""
        e = Emit(ir.Function(self.module, ir.FunctionType(VOID, [I64]), name))
        b, (state,) = e.b, e.function.args
        taken = b.inttoptr(e.at(state, 8 * next_piece), I64.as_pointer())
        count = _word(e, state, num_pieces)
        head, work, end = e.block("head"), e.block("work"), e.block("end")
        b.branch(head)
        b.position_at_end(head)
        piece = b.atomic_rmw("add", taken, const(1), "monotonic")
        b.cbranch(b.icmp_signed("<", piece, count), work, end)
        b.position_at_end(work)
        b.call(run, [state, piece])
        b.branch(head)
        b.position_at_end(end)
        b.ret_void()

    def quantise_piece(self) -> ir.Function:
        """(state, piece): PER items, in the order of Q."""
        function, e = self._function("quantise_piece", 2)
        b, (state, piece) = e.b, function.args
        x, q, scales, sums = (_word(e, state, i) for i in (slots.X, slots.Q, slots.SCALES, slots.SUMS))
        rows, groups, per = (_word(e, state, i) for i in (slots.ROWS, slots.GROUPS, slots.PER))
        first = b.mul(piece, per)
        with e.each(first, e.smaller(b.add(first, per), b.mul(rows, groups))) as item:
            row, group = b.srem(item, rows), b.sdiv(item, rows)
            source = b.add(x, b.mul(b.add(b.mul(row, groups), group), const(2 * GROUP)))
            quantise(
                e,
                self.machine.lanes,
                self.activation_group,
                source,
                b.add(q, b.mul(item, const(GROUP))),
                b.add(scales, b.mul(item, const(self.item_bytes))),
                b.add(sums, b.mul(item, const(self.item_bytes))),
            )
        b.ret_void()
        return function

    def product_piece(self) -> ir.Function:
        """(state, piece): one range of panels for one chunk of rows."""
        blocks = self._blocks()
        function, e = self._function("product_piece", 2)
        b, (state, piece) = e.b, function.args
        panels, ranges, chunk = (_word(e, state, i) for i in (slots.PANELS, slots.RANGES, slots.CHUNK))
        scratch = b.alloca(I8, slots.MOST_CHUNK * PANEL * 4 + 64)
        out = b.and_(b.add(b.ptrtoint(scratch, I64), const(63)), const(-64))
        first_row = b.mul(b.sdiv(piece, ranges), chunk)
        num_rows = b.sub(e.smaller(b.add(first_row, chunk), _word(e, state, slots.ROWS)), first_row)
        index = b.srem(piece, ranges)
        start, stop = (b.sdiv(b.mul(panels, i), ranges) for i in (index, b.add(index, const(1))))
        with e.each(start, stop) as panel:
            self._start_sums(e, state, panel, out, num_rows)
            with e.each(const(0), _word(e, state, slots.GROUPS)) as group:
                self._add_record(e, state, panel, group, out, first_row, num_rows, blocks)
            self._finish(e, state, panel, out, first_row, num_rows)
        b.ret_void()
        return function

    def _blocks(self) -> dict[int, ir.Function]:
        """A function for each number of rows, plus PREFETCHING for those that prefetch.

        Where several blocks share a record, the core spends longer on it than the hardware's prefetcher looks ahead.
        With one block software prefetch only gets in that prefetcher's way; but AVX2 walks a record in strips, which
        the hardware does not foresee.
        """
        machine, forms = self.machine, {}
        for rows, tiles in machine.tiles.items():
            # Several blocks have at least half the most rows each.
            shared = 2 * rows >= machine.most_rows or not machine.vnni
            for ahead in [0] * machine.vnni + [2 * self.layout.nbytes] * shared:
                function, e = self._function(f"block{rows}_{ahead}", 5)
                block = Block(e, machine, self.layout, Operands(*function.args), rows, self.activation_group)
                for first_tile in range(0, PANEL // machine.lanes, tiles):
                    block.emit(first_tile, tiles, ahead)
                e.b.ret_void()
                forms[rows + (PREFETCHING if ahead else 0)] = function
        return forms

    def _start_sums(self, e: Emit, state: Value, panel: Value, out: Value, num_rows: Value) -> None:
        """The sums start as the bias."""
        b, lanes = e.b, self.machine.lanes
        bias = b.add(_word(e, state, slots.BIAS), b.mul(panel, const(2 * PANEL)))
        floats = ir.VectorType(F32, lanes)
        tiles = range(0, PANEL, lanes)
        values = [b.bitcast(load_bfloat16(e, e.at(bias, 2 * i), lanes), floats) for i in tiles]
        with e.each(const(0), num_rows) as row:
            to = b.add(out, b.mul(row, const(4 * PANEL)))
            for i, value in zip(tiles, values, strict=True):
                e.store(value, e.at(to, 4 * i), 4 * lanes)

    def _add_record(
        self,
        e: Emit,
        state: Value,
        panel: Value,
        group: Value,
        out: Value,
        first_row: Value,
        num_rows: Value,
        blocks: dict[int, ir.Function],
    ) -> None:
        """The product with one record, in blocks of about equally many rows."""
        b, most = e.b, self.machine.most_rows
        rows, groups = _word(e, state, slots.ROWS), _word(e, state, slots.GROUPS)
        index = b.add(b.mul(panel, groups), group)
        record = b.add(_word(e, state, slots.RECORDS), b.mul(index, const(self.layout.nbytes)))
        q, scales, sums = (_word(e, state, i) for i in (slots.Q, slots.SCALES, slots.SUMS))
        num_blocks = b.sdiv(b.add(num_rows, const(most - 1)), const(most))
        prefetching = b.icmp_signed(">", num_blocks, const(1 if self.machine.vnni else 0))
        with e.each(const(0), num_blocks) as k:
            start, stop = (b.sdiv(b.mul(num_rows, i), num_blocks) for i in (k, b.add(k, const(1))))
            item = b.add(b.mul(group, rows), b.add(first_row, start))
            operands = [
                record,
                b.add(q, b.mul(item, const(GROUP))),
                b.add(scales, b.mul(item, const(self.item_bytes))),
                b.add(sums, b.mul(item, const(self.item_bytes))),
                b.add(out, b.mul(start, const(4 * PANEL))),
            ]
            form = b.add(b.sub(stop, start), b.select(prefetching, const(PREFETCHING), const(0)))
            self._call_form(e, form, operands, blocks)

    def _call_form(self, e: Emit, form: Value, operands: list[Value], blocks: dict[int, ir.Function]) -> None:
        end, none = e.block("done"), e.block("none")
        switch = e.b.switch(form, none)
        for number, function in blocks.items():
            target = e.block(f"form{number}")
            switch.add_case(const(number), target)
            e.b.position_at_end(target)
            e.b.call(function, operands)
            e.b.branch(end)
        e.b.position_at_end(none)
        e.b.unreachable()
        e.b.position_at_end(end)

    def _finish(
        self, e: Emit, state: Value, panel: Value, out: Value, first_row: Value, num_rows: Value
    ) -> None:
        """The sums to Y, as bfloat16."""
        b, lanes = e.b, self.machine.lanes
        width = b.mul(_word(e, state, slots.PANELS), const(2 * PANEL))
        corner = b.add(_word(e, state, slots.Y), b.mul(panel, const(2 * PANEL)))
        with e.each(const(0), num_rows) as row:
            to = b.add(corner, b.mul(b.add(first_row, row), width))
            source = b.add(out, b.mul(row, const(4 * PANEL)))
            for i in range(0, PANEL, lanes):
                values = e.load(ir.VectorType(F32, lanes), e.at(source, 4 * i), 4 * lanes)
                store_bfloat16(e, values, e.at(to, 2 * i), lanes)

    def _function(self, name: str, num_args: int) -> tuple[ir.Function, Emit]:
        function = ir.Function(self.module, ir.FunctionType(VOID, [I64] * num_args), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        return function, Emit(function)


def _word(e: Emit, state: Value, index: int) -> Value:
    return e.load(I64, e.at(state, 8 * index), 8)
