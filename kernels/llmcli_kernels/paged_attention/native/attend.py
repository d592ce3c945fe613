"""The kernel that does the work: queries of one tile over positions of one split, for one head of keys.

Flash attention (Dao et al., arXiv 2205.14135) over pages (Kwon et al., arXiv 2309.06180): strips of positions, at
multiples of their number, one after the other; scores, weights and sums of a strip stay in the cache. Owns the words
of a layer, how a piece finds its work, and the loop over strips.
"""

from collections.abc import Callable

from llvmlite import ir

from llmcli_kernels.native.emit import F32, I8, I64, Emit, Value, const, splat
from llmcli_kernels.native.kernel import function, pieces_function, word
from llmcli_kernels.native.math import fma, sum_lanes
from llmcli_kernels.paged_attention.native import plan
from llmcli_kernels.paged_attention.native.ahead import Ahead
from llmcli_kernels.paged_attention.native.arithmetic import BLOCKS, Block, Product, in_blocks
from llmcli_kernels.paged_attention.native.form import SPLIT, Form
from llmcli_kernels.paged_attention.native.operands import Operands
from llmcli_kernels.paged_attention.native.weights import LEAST, Weights

# Words of a layer. OUT [T, HQ, D] is contiguous; Q_STRIDE in bytes; GROUP query heads for each of KV_HEADS; SHIFT is
# the block size's logarithm; FACTOR a float32, scale · log2 e; WINDOW below 2^31; PLAN_AT the address of a plan's
# block; THREADS a guess of how far the next piece of a thread is.
(
    Q,
    Q_STRIDE,
    OUT,
    KEYS,
    VALUES,
    KEY_SCALES,
    VALUE_SCALES,
    KV_HEADS,
    GROUP,
    SHIFT,
    FACTOR,
    WINDOW,
    PLAN_AT,
    THREADS,
) = range(14)
RECORD_BITS = 20  # more sequences than 2^20 have no room in a step


def emit_attend(module: ir.Module, form: Form) -> None:
    """The kernel "attend"."""
    pieces_function(
        module,
        "attend",
        _num_pieces,
    )
    _Attend(module, form).emit()


def _num_pieces(e: Emit, args: Value) -> Value:
    return e.b.mul(word(e, word(e, args, PLAN_AT), plan.NUM_UNITS), word(e, args, KV_HEADS))


class _Attend:
    def __init__(self, module: ir.Module, form: Form) -> None:
        self.module, self.form, self.scratch = module, form, form.scratch
        self.floats = ir.VectorType(F32, form.lanes)
        self.ahead = Ahead(form)
        self.operands, self.weights = Operands(module, form), Weights(module, form)
        self.score_blocks = {block: self._scores(block) for block in BLOCKS[form.lanes]}
        self.mix_blocks = {block: self._mix(block) for block in BLOCKS[form.lanes]}
        self.finish, self.leave = self._finish(), self._leave()

    def emit(self) -> None:
        with function(self.module, "attend", 2) as (e, (args, piece)):
            b = e.b
            room = b.ptrtoint(b.alloca(I8, self.scratch.nbytes + 64), I64)
            work = _Work(e, self.form, args, piece)
            scratch = b.and_(e.at(room, 63), const(-64))
            self._start(e, scratch, work)
            strip = self.form.strip
            first = b.and_(work.start, const(-strip))
            self._locate(e, self._place(e, scratch, first), work, first)
            with e.each(first, work.end, strip) as base:
                self._strip(e, scratch, work, base)
            with b.if_else(b.icmp_signed("==", work.splits, const(1))) as (alone, split):
                with alone:
                    b.call(self.finish, [scratch, work.rows, work.group, work.out, work.out_stride])
                with split:
                    b.call(self.leave, [scratch, work.rows, work.partial])

    def _start(self, e: Emit, scratch: Value, work: "_Work") -> None:
        """Queries to scratch memory; sums of nothing."""
        b, form = e.b, self.form
        with e.each(const(0), work.queries) as query, e.each(const(0), work.group) as head:
            row = b.add(b.mul(query, work.group), head)
            at = b.add(b.mul(query, work.q_stride), b.mul(head, const(form.head_size * form.itemsize)))
            b.call(self.operands.query, [scratch, row, b.add(work.q, at)])
        zero = splat(F32, 0.0, form.lanes)
        with e.each(const(0), work.rows) as row:
            e.store(
                ir.Constant(F32, LEAST), b.add(e.at(scratch, self.scratch.maxima), b.shl(row, const(2))), 4
            )
            e.store(zero, b.add(e.at(scratch, self.scratch.weights), b.mul(row, const(4 * form.lanes))), 4)
            sums = b.add(e.at(scratch, self.scratch.sums), b.mul(row, const(4 * form.head_size)))
            with e.each(const(0), const(4 * form.head_size), 4 * form.lanes) as i:
                e.store(zero, b.add(sums, i), 4)

    def _place(self, e: Emit, scratch: Value, base: Value) -> Value:
        """Of the strip from `base` on: one of two, in turn."""
        odd = e.b.icmp_signed("!=", e.b.and_(base, const(self.form.strip)), const(0))
        places = e.at(scratch, self.scratch.places)
        return e.b.select(odd, e.at(places, self.scratch.place_bytes), places)

    def _locate(self, e: Emit, place: Value, work: "_Work", base: Value) -> None:
        shift, *scales = (word(e, work.args, i) for i in (SHIFT, KEY_SCALES, VALUE_SCALES))
        where = [work.table, base, work.start, work.end, shift, work.kv_heads, work.head]
        e.b.call(self.operands.locate, [place, *where, *scales])

    def _locate_following(self, e: Emit, scratch: Value, work: "_Work", base: Value) -> Value:
        """The place of what comes after the strip from `base` on: the piece's next, or the thread's next piece.

        Of the very last one it is the strip's own.
        """
        b, after = e.b, e.at(base, self.form.strip)
        other = self._place(e, scratch, after)
        more = b.icmp_signed("<", after, work.end)
        next_piece = b.add(work.piece, word(e, work.args, THREADS))
        any_ = b.or_(more, b.icmp_signed("<", next_piece, _num_pieces(e, work.args)))
        with b.if_then(any_), b.if_else(more) as (here, elsewhere):
            with here:
                self._locate(e, other, work, after)
            with elsewhere:
                following = _Work(e, self.form, work.args, next_piece)
                self._locate(e, other, following, b.and_(following.start, const(-self.form.strip)))
        return b.select(any_, other, self._place(e, scratch, base))

    def _strip(self, e: Emit, scratch: Value, work: "_Work", base: Value) -> None:
        b, form, operands = e.b, self.form, self.operands
        place = self._place(e, scratch, base)
        following = self._locate_following(e, scratch, work, base)
        many = b.icmp_signed(">=", work.rows, const(BLOCKS[form.lanes][0].rows))
        early = b.select(many, *(const(self.ahead.early(many_rows=rows)) for rows in (True, False)))
        keys, values = ([scratch, place, following, early, word(e, work.args, i)] for i in (KEYS, VALUES))
        b.call(operands.keys, keys)
        in_blocks(e, form.lanes, work.rows, lambda block, row: b.call(self.score_blocks[block], [*keys, row]))
        factor = e.at(work.args, 8 * FACTOR)
        # The first query sees its last positions, the last query its first.
        latest = b.icmp_signed("<", e.at(base, form.strip - 1), e.at(work.position, 1))
        earliest = b.icmp_signed(
            ">", b.add(base, work.window), b.add(work.position, b.sub(work.queries, const(1)))
        )
        with b.if_else(b.and_(latest, earliest)) as (open_, masked):
            with open_:
                b.call(self.weights.open, [scratch, place, work.rows, factor])
            with masked:
                distance = b.sub(work.position, base)
                b.call(
                    self.weights.masked,
                    [scratch, place, work.rows, factor, work.group, distance, work.window],
                )
        b.call(operands.values, values)
        in_blocks(e, form.lanes, work.rows, lambda block, row: b.call(self.mix_blocks[block], [*values, row]))

    def _scores(self, block: Block) -> ir.Function:
        """(scratch, place, next, early, keys, row): products of a block's queries and the strip's keys."""
        form, width = self.form, 4 * self.form.lanes
        m, n, distance = block.rows, min(block.columns, 4), 4 * form.strip
        with function(self.module, f"scores{block.rows}", 6, internal=True) as (e, args):
            scratch, _, following, _, address, row = args
            b, product = e.b, Product(e, form, block.unroll)
            queries = b.add(e.at(scratch, self.scratch.query), b.mul(row, const(4 * form.key_units)))
            out = b.add(e.at(scratch, self.scratch.scores), b.mul(row, const(distance)))
            turns = form.key_units // block.unroll
            ahead = self._late(e, block, turns * 4 // n, following, address, row)
            for first in range(0, 4, n):
                keys = e.at(scratch, self.scratch.keys + first * width)
                operands = (queries, 4 * form.key_units, keys, distance)
                each_turn = ahead(const(first // n * turns))
                sums = product.add(product.zeros(m * n), m, form.key_units, *operands, each_turn)
                for i, total in enumerate(sums):
                    at = e.at(out, i // n * distance + (first + i % n) * width)
                    e.store(b.sitofp(total, self.floats) if product.integer else total, at, 4)
        return e.function

    def _mix(self, block: Block) -> ir.Function:
        """(scratch, place, next, early, values, row): sums of the rows, faded, plus their weights times the values."""
        form = self.form
        with function(self.module, f"mix{block.rows}", 6, internal=True) as (e, args):
            scratch, _, following, _, address, row = args
            n = min(block.columns, form.vectors)
            whole = form.vectors // n * n
            turns = form.value_units // block.unroll
            ahead = self._late(e, block, turns * -(-form.vectors // n), following, address, row)

            def columns(n: int, first: Value) -> None:
                each_turn = ahead(e.b.mul(e.b.sdiv(first, const(n)), const(turns)))
                self._mix_columns(e, block._replace(columns=n), scratch, row, first, each_turn)

            with e.each(const(0), const(whole), n) as first:
                columns(n, first)
            if whole < form.vectors:
                columns(form.vectors - whole, const(whole))
        return e.function

    def _mix_columns(
        self,
        e: Emit,
        block: Block,
        scratch: Value,
        row: Value,
        first: Value,
        each_turn: Callable[[Value], None],
    ) -> None:
        """The block's columns, from register `first` on."""
        b, form, width = e.b, self.form, 4 * self.form.lanes
        (m, n, unroll), head_bytes, at_row = block, 4 * form.head_size, b.shl(row, const(2))
        product = Product(e, form, unroll)
        column = b.mul(first, const(width))
        weights = b.add(e.at(scratch, self.scratch.scores), b.mul(row, const(4 * form.strip)))
        values = b.add(e.at(scratch, self.scratch.values), column)
        sums_at = b.add(b.add(e.at(scratch, self.scratch.sums), column), b.mul(row, const(head_bytes)))

        def scalar(offset: int, i: int) -> Value:
            value = e.load(F32, b.add(e.at(scratch, offset + 4 * (i // n)), at_row), 4)
            return e.broadcast(value, form.lanes)

        def at(i: int) -> Value:
            return e.at(sums_at, i // n * head_bytes + i % n * width)

        def faded() -> list[Value]:
            return [
                b.fmul(e.load(self.floats, at(i), 4), scalar(self.scratch.fades, i)) for i in range(m * n)
            ]

        start = product.zeros(m * n) if product.integer else faded()
        operands = (weights, 4 * form.strip, values, head_bytes)
        sums = product.add(start, m, form.value_units, *operands, each_turn)
        if product.integer:
            exact = [b.sitofp(total, self.floats) for total in sums]
            sums = [
                fma(e, new, scalar(self.scratch.gains, i), old)
                for i, (new, old) in enumerate(zip(exact, faded(), strict=True))
            ]
        for i, total in enumerate(sums):
            e.store(total, at(i), 4)

    def _late(
        self, e: Emit, block: Block, turns: int, place: Value, tensor: Value, row: Value
    ) -> Callable[[Value], Callable[[Value], None]]:
        """What prefetches the late lines in so many turns, if a block has the first row.

        Returns:
            from the number of a loop's first turn to what the loop does in a turn.
        """
        b, ahead = e.b, self.ahead
        start = ahead.early(many_rows=block == BLOCKS[self.form.lanes][0])
        share = ahead.share(ahead.lines - start, turns)
        limit = b.select(b.icmp_signed("==", row, const(0)), const(ahead.lines), const(0))

        def loop(first: Value) -> Callable[[Value], None]:
            def each_turn(turn: Value) -> None:
                line = e.at(b.mul(b.add(first, turn), const(share)), start)
                ahead.ask(e, place, tensor, line, limit, share)

            return each_turn

        return loop

    def _finish(self) -> ir.Function:
        """(scratch, rows, group, out, stride): the rows of a tile that has all of its positions."""
        form = self.form
        with function(self.module, "finish", 5, internal=True) as (e, (scratch, rows, group, out, stride)):
            b = e.b
            with e.each(const(0), rows) as row:
                total = self._total(e, scratch, row)
                inverse = e.broadcast(b.fdiv(ir.Constant(F32, 1.0), total), form.lanes)
                query, head = b.sdiv(row, group), b.srem(row, group)
                to = b.add(
                    out, b.add(b.mul(query, stride), b.mul(head, const(form.head_size * form.itemsize)))
                )
                sums = b.add(e.at(scratch, self.scratch.sums), b.mul(row, const(4 * form.head_size)))
                for i in range(0, form.head_size, form.lanes):
                    value = b.fmul(e.load(self.floats, e.at(sums, 4 * i), 4), inverse)
                    e.store_floats(form.kind, value, e.at(to, i * form.itemsize))
        return e.function

    def _leave(self) -> ir.Function:
        """(scratch, rows, out): the rows of a split, to be merged."""
        form = self.form
        with function(self.module, "leave", 3, internal=True) as (e, (scratch, rows, out)):
            b = e.b
            with e.each(const(0), rows) as row:
                to = b.add(out, b.mul(row, const(form.partial_bytes)))
                sums = b.add(e.at(scratch, self.scratch.sums), b.mul(row, const(4 * form.head_size)))
                for i in range(0, 4 * form.head_size, 4 * form.lanes):
                    e.store(e.load(self.floats, e.at(sums, i), 4), e.at(to, i), 4)
                peak = e.load(F32, b.add(e.at(scratch, self.scratch.maxima), b.shl(row, const(2))), 4)
                e.store(peak, e.at(to, 4 * form.head_size), 4)
                e.store(self._total(e, scratch, row), e.at(to, 4 * form.head_size + 4), 4)
        return e.function

    def _total(self, e: Emit, scratch: Value, row: Value) -> Value:
        at = e.b.add(e.at(scratch, self.scratch.weights), e.b.mul(row, const(4 * self.form.lanes)))
        return sum_lanes(e, e.load(self.floats, at, 4))


class _Work:
    """What a piece has to do, as values of the code that does it.

    Attributes:
        rows: query heads of the tile: `queries` times `group`.
        q, q_stride, out, out_stride: addresses of the first query's first head, and bytes from query to query.
        position: of the first query.
        start, end: positions that some query sees, of this split.
        partial: address of the first row for a split's sums.
    """

    def __init__(self, e: Emit, form: Form, args: Value, piece: Value) -> None:
        b, self.args, self.piece = e.b, args, piece
        block = word(e, args, PLAN_AT)
        self.kv_heads, self.group, self.window = (word(e, args, i) for i in (KV_HEADS, GROUP, WINDOW))
        unit, self.head = b.sdiv(piece, self.kv_heads), b.srem(piece, self.kv_heads)
        index = _record_of(e, block, unit)
        record = b.add(word(e, block, plan.RECORDS), b.mul(index, const(8 * plan.RECORD_WORDS)))
        unit = b.sub(unit, word(e, record, plan.FIRST_UNIT))
        self.table = b.add(
            word(e, block, plan.TABLES), b.shl(b.mul(index, word(e, block, plan.TABLE_WIDTH)), const(3))
        )
        self.splits, all_queries = word(e, record, plan.SPLITS), word(e, record, plan.QUERIES)
        is_split = b.icmp_signed(">", self.splits, const(1))

        tile = b.sdiv(const(form.rows), self.group)
        tiles = b.sdiv(b.sub(b.add(all_queries, tile), const(1)), tile)
        # The last tile has the most to do and is the first.
        first = b.mul(b.select(is_split, const(0), b.sub(b.sub(tiles, const(1)), unit)), tile)
        self.queries = e.smaller(tile, b.sub(all_queries, first))
        self.rows = b.mul(self.queries, self.group)
        self.position = b.add(word(e, record, plan.POSITION), first)

        start = b.sub(e.at(self.position, 1), self.window)
        start = b.select(b.icmp_signed("<", start, const(0)), const(0), start)
        end = b.add(self.position, self.queries)
        from_ = b.mul(b.add(b.sdiv(start, const(SPLIT)), unit), const(SPLIT))
        inner = b.select(b.icmp_signed("<", start, from_), from_, start)
        self.start = b.select(is_split, inner, start)
        self.end = b.select(is_split, e.smaller(end, e.at(from_, SPLIT)), end)

        row, head_bytes = b.add(word(e, record, plan.ROW), first), const(form.head_size * form.itemsize)
        corner = b.mul(b.mul(self.head, self.group), head_bytes)
        self.q_stride = word(e, args, Q_STRIDE)
        self.q = b.add(b.add(word(e, args, Q), b.mul(row, self.q_stride)), corner)
        self.out_stride = b.mul(b.mul(self.kv_heads, self.group), head_bytes)
        self.out = b.add(b.add(word(e, args, OUT), b.mul(row, self.out_stride)), corner)
        partial = b.mul(b.add(b.mul(unit, self.kv_heads), self.head), self.rows)
        partial = b.add(word(e, record, plan.PARTIAL), partial)
        self.partial = b.add(word(e, block, plan.PARTIALS), b.mul(partial, const(form.partial_bytes)))


def _record_of(e: Emit, block: Value, unit: Value) -> Value:
    """The index of the last record whose first unit is not behind `unit`: bit by bit, from the highest."""
    b, records = e.b, word(e, block, plan.RECORDS)
    last = b.sub(word(e, block, plan.NUM_RECORDS), const(1))

    def body(i: Value, state: list[Value]) -> list[Value]:
        (found,) = state
        candidate = b.add(found, b.lshr(const(1 << RECORD_BITS), i))
        at = b.add(records, b.mul(e.smaller(candidate, last), const(8 * plan.RECORD_WORDS)))
        before = b.icmp_signed("<=", word(e, at, plan.FIRST_UNIT), unit)
        take = b.and_(before, b.icmp_signed("<=", candidate, last))
        return [b.select(take, candidate, found)]

    return e.loop(1, RECORD_BITS + 1, 1, [const(0)], body)[0]
