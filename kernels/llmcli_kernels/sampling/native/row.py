"""One row: its largest logit, the filters in their order, and the draw.

The words of the kernel:

    LOGITS, IDS, FINITE     addresses of [rows, VOCABULARY] float32, [rows] int64 and [rows] bytes
    TEMPERATURE, TOP_K, TOP_P, MIN_P, UNIFORMS
                            addresses of the parameters, [rows]: float32, int64, float32, float32, float64
    ROWS_AT                 address of the number of rows
    VOCABULARY              numbers in a row
    MEMORY, SLOTS           address of slots that rows are sampled in, and their number; `slot` has their size
    BYTES_OF_SLOT, BYTES_OF_ARRAY

A piece is a slot: it takes every SLOTS-th row. A temperature that is not above zero, NaN too, takes the largest logit;
a uniform number outside [0, 1) is taken for the nearest inside, NaN for the largest.
"""

from llvmlite import ir

from llmcli_kernels.native.emit import F32, I8, I32, I64, Emit, Value, const, splat
from llmcli_kernels.native.kernel import function, pieces_function, word
from llmcli_kernels.sampling.native.borders import min_p_border, top_p_start
from llmcli_kernels.sampling.native.passes import (
    BASE,
    BLOCK,
    GROUP,
    LANES,
    LAST,
    PEAK,
    SIZE,
    Numbers,
    bits_of,
    first_lane,
)
from llmcli_kernels.sampling.native.scalars import (
    ALL,
    F64,
    INFINITE,
    LOWEST,
    Variable,
    double,
    float_of,
    larger,
    repeat,
)
from llmcli_kernels.sampling.native.slot import BYTES_OF_ARRAY as SLOT_BYTES_OF_ARRAY
from llmcli_kernels.sampling.native.slot import (
    CHOSEN,
    CHOSEN_PLACES,
    CHOSEN_VALUES,
    GROUPS,
    MAXIMA,
    ROW,
    RUNNING,
    WEIGHTS,
    Slot,
    call,
)

(LOGITS, IDS, FINITE, TEMPERATURE, TOP_K, TOP_P, MIN_P, UNIFORMS) = range(8)  # words
ROWS_AT, VOCABULARY, MEMORY, SLOTS, BYTES_OF_SLOT, BYTES_OF_ARRAY = range(8, 14)

MOST_INVERSE = 2.0**127  # of temperatures too small for their inverse to be a float32
SMALLEST = 5e-324
BELOW_ONE = 1 - 2.0**-53


def emit_sample(module: ir.Module) -> None:
    """The kernel "sample"."""
    for emit in (_emit_first_equal, _emit_find, _emit_draw):
        emit(module)

    def count(e: Emit, args: Value) -> Value:
        return e.smaller(word(e, word(e, args, ROWS_AT), 0), word(e, args, SLOTS))

    pieces_function(module, "sample", count)
    with function(module, "sample", 2) as (e, (args, piece)):
        b = e.b
        slot = b.add(word(e, args, MEMORY), b.mul(piece, word(e, args, BYTES_OF_SLOT)))
        e.store(word(e, args, BYTES_OF_ARRAY), e.at(slot, 8 * SLOT_BYTES_OF_ARRAY), 8)
        rows = word(e, word(e, args, ROWS_AT), 0)
        row = Variable(e, piece)
        with repeat(e, lambda: b.icmp_signed("<", row.get(), rows)):
            _sample_row(e, args, Slot(e, slot), row.get())
            row.set(b.add(row.get(), word(e, args, SLOTS)))


def _sample_row(e: Emit, args: Value, at: Slot, row: Value) -> None:
    b, found = e.b, Variable(e, const(0))
    _open_row(e, args, at, row)
    peak = call(e, "peak", at.list(ROW), at.list(GROUPS))
    finite = b.and_(b.icmp_signed(">=", peak, const(LOWEST)), b.icmp_signed("<", peak, const(INFINITE)))
    with b.if_then(finite):
        temperature = e.load(F32, b.add(word(e, args, TEMPERATURE), b.mul(row, const(4))), 4)
        greedy = b.fcmp_unordered("<=", temperature, ir.Constant(F32, 0.0))
        with b.if_else(greedy) as (then, otherwise):
            with then:
                found.set(call(e, "first_equal", at.list(ROW), at.list(GROUPS), peak))
            with otherwise:
                found.set(call(e, "draw", args, at.address, row, peak))
    e.store(found.get(), b.add(word(e, args, IDS), b.mul(row, const(8))), 8)
    e.store(b.zext(finite, I8), b.add(word(e, args, FINITE), row), 1)


def _open_row(e: Emit, args: Value, at: Slot, row: Value) -> None:
    """The row as a list, and where the list of maxima will be."""
    b, vocabulary = e.b, word(e, args, VOCABULARY)
    base = b.add(word(e, args, LOGITS), b.mul(b.mul(row, vocabulary), const(4)))
    size = b.and_(b.add(vocabulary, const(LANES - 1)), const(-LANES))
    whole = b.and_(vocabulary, const(-LANES))
    e.store(splat(F32, float("-inf"), LANES), at.tail, 4)
    with e.each(whole, vocabulary) as i:
        value = e.load(F32, b.add(base, b.mul(i, const(4))), 4)
        e.store(value, b.add(at.tail, b.mul(b.sub(i, whole), const(4))), 4)
    is_whole = b.icmp_signed("==", whole, vocabulary)
    last = b.select(is_whole, b.add(base, b.mul(b.sub(whole, const(LANES)), const(4))), at.tail)
    for index, value in ((BASE, base), (LAST, last), (SIZE, size)):
        e.store(value, e.at(at.list(ROW), 8 * index), 8)
    e.store(at.array(MAXIMA), e.at(at.list(GROUPS), 8 * BASE), 8)


def _emit_first_equal(module: ir.Module) -> None:
    """first_equal(row, groups, peak) -> the lowest index of the number that has the key peak."""
    with function(module, "first_equal", 3, I64, internal=True) as (e, (row, groups, peak)):
        b = e.b
        wanted = e.broadcast(float_of(e, peak), LANES)
        found, bits = Variable(e, const(0)), Variable(e, const(0))

        def search(numbers: Numbers, start: Value) -> Value:
            """The index of the first vector that has it, from `start` on."""
            found.set(b.sub(start, const(LANES)))
            bits.set(const(0))
            with repeat(e, lambda: b.icmp_signed("==", bits.get(), const(0))):
                found.set(b.add(found.get(), const(LANES)))
                bits.set(bits_of(e, b.fcmp_ordered("==", numbers.load(found.get()), wanted)))
            return found.get()

        group = search(Numbers(e, groups), const(0))
        vector = search(Numbers(e, row), b.mul(group, const(GROUP // LANES)))
        b.ret(b.add(vector, first_lane(e, bits.get())))


def _emit_draw(module: ir.Module) -> None:
    """draw(args, slot, row, peak) -> id, of a row with a temperature above zero."""
    with function(module, "draw", 4, I64, internal=True) as (e, (args, slot, row, peak)):
        b, draw = e.b, _Draw(e, args, Slot(e, slot), row, peak)
        floor = draw.apply_top_k()
        total = Variable(e, draw.weigh(floor))
        border, last = Variable(e, const(ALL)), Variable(e, word(e, args, VOCABULARY))
        with b.if_then(b.fcmp_ordered("<", draw.top_p, double(1.0))):
            last.set(draw.apply_top_p(floor, total.get()))
            border.set(word(e, draw.at.borders, 0))
        lowest = min_p_border(e, draw.min_p, draw.temperature, peak)
        with b.if_then(b.icmp_signed(">", lowest, border.get())):
            border.set(lowest)
            last.set(word(e, args, VOCABULARY))
        with b.if_then(b.icmp_signed(">", border.get(), const(ALL))):
            total.set(draw.settle(border.get(), last.get()))
        b.ret(draw.find(total.get()))


class _Draw:
    """A row's parameters, float64, and what is done with them; the list that is drawn from is the row until top-k."""

    def __init__(self, e: Emit, args: Value, at: Slot, row: Value, peak: Value) -> None:
        self.e, self.at, self.peak = e, at, peak
        self.vocabulary = word(e, args, VOCABULARY)

        def parameter(index: int, kind: ir.Type, size: int) -> Value:
            return e.load(kind, e.b.add(word(e, args, index), e.b.mul(row, const(size))), size)

        self.temperature, self.top_p, self.min_p = (
            e.b.fpext(parameter(index, F32, 4), F64) for index in (TEMPERATURE, TOP_P, MIN_P)
        )
        self.top_k, self.uniform = parameter(TOP_K, I64, 8), parameter(UNIFORMS, F64, 8)
        self.list = Variable(e, at.list(ROW))
        self.places = Variable(e, const(0))  # address of the list's places in the row; 0 for the row itself

    def apply_top_k(self) -> Value:
        """The key that kept tokens reach. With a small k, the list becomes what may be above it.

        As many groups as k have a logit that reaches the k-th largest of the maxima, so as many logits do.
        """
        e, b, at, k = self.e, self.e.b, self.at, self.top_k
        floor, end = Variable(e, const(LOWEST)), b.add(self.peak, const(1))
        wanted = b.and_(b.icmp_signed(">", k, const(0)), b.icmp_signed("<", k, self.vocabulary))
        twice = b.mul(k, const(2))
        with b.if_then(wanted):
            groups = at.list(GROUPS)
            with b.if_then(b.icmp_signed("<=", twice, word(e, groups, SIZE))):
                low = call(e, "kth", groups, const(LOWEST), end, k, twice)
                chosen, places = at.list(CHOSEN), at.array(CHOSEN_PLACES)
                e.store(at.array(CHOSEN_VALUES), e.at(chosen, 8 * BASE), 8)
                call(e, "collect", at.list(ROW), low, const(INFINITE), chosen, places)
                floor.set(low)
                self.list.set(chosen)
                self.places.set(places)
            floor.set(call(e, "kth", self.list.get(), floor.get(), end, k, k))
        return floor.get()

    def weigh(self, floor: Value) -> Value:
        e, b, at = self.e, self.e.b, self.at
        inverse = b.fdiv(double(1.0), self.temperature)
        too_large = b.fcmp_ordered(">", inverse, double(MOST_INVERSE))
        inverse = b.select(too_large, double(MOST_INVERSE), inverse)
        nearest = b.fptrunc(inverse, F32)
        rest = b.fptrunc(b.fsub(inverse, b.fpext(nearest, F64)), F32)
        for index, value in enumerate((float_of(e, self.peak), nearest, rest), PEAK):
            e.store(value, e.at(at.scale, 8 * index), 8)
        weights, running = at.array(WEIGHTS), at.array(RUNNING)
        return call(e, "weigh", self.list.get(), weights, running, floor, at.scale)

    def apply_top_p(self, floor: Value, total: Value) -> Value:
        """See the function top_p: the border is left in the slot."""
        e, b, at = self.e, self.e.b, self.at
        goal = b.fmul(self.top_p, total)
        goal = b.select(b.fcmp_ordered(">", goal, double(SMALLEST)), goal, double(SMALLEST))
        start = top_p_start(e, self.top_p, self.temperature, self.peak, self.vocabulary)
        e.store(larger(e, start, floor), at.borders, 8)
        e.store(b.add(self.peak, const(1)), e.at(at.borders, 8), 8)
        return call(e, "top_p", at.address, self.list.get(), b.bitcast(goal, I64), at.borders)

    def settle(self, border: Value, last: Value) -> Value:
        weights, running = self.at.array(WEIGHTS), self.at.array(RUNNING)
        return call(self.e, "settle", self.list.get(), weights, running, border, last)

    def find(self, total: Value) -> Value:
        """The id that the uniform number stands for."""
        e, b = self.e, self.e.b
        target, most = b.fmul(self.uniform, total), b.fmul(total, double(BELOW_ONE))
        target = b.select(b.fcmp_ordered("<", target, most), target, most)
        target = b.select(b.fcmp_ordered(">", target, double(0.0)), target, double(0.0))
        weights, running = self.at.array(WEIGHTS), self.at.array(RUNNING)
        size = word(e, self.list.get(), SIZE)
        index = call(e, "find", weights, running, size, b.bitcast(target, I64))
        result = Variable(e, index)
        with b.if_then(b.icmp_signed("!=", self.places.get(), const(0))):
            place = e.load(I32, b.add(self.places.get(), b.mul(index, const(4))), 4)
            result.set(b.sext(place, I64))
        return result.get()


def _emit_find(module: ir.Module) -> None:
    """find(weights, running, size, target bits) -> the lowest index up to which the weights are more than the target.

    The target is less than their sum. Where the order of additions leaves none, the last with a weight in the block; 0
    where nothing has a weight.
    """
    with function(module, "find", 4, I64, internal=True) as (e, (weights, running, size, target)):
        b, target = e.b, e.b.bitcast(target, F64)
        block, passed, found = Variable(e, const(0)), Variable(e, double(0.0)), Variable(e, const(0))

        def reached() -> Value:
            return e.load(F64, b.add(running, b.mul(block.get(), const(8))), 8)

        last_block = b.sdiv(b.sub(size, const(1)), const(BLOCK))

        def passes() -> Value:
            is_last = b.icmp_signed("==", block.get(), last_block)
            return b.and_(b.not_(is_last), b.fcmp_ordered("<=", reached(), target))

        with repeat(e, passes):
            passed.set(reached())
            block.set(b.add(block.get(), const(1)))
        i = Variable(e, b.mul(block.get(), const(BLOCK)))
        end = e.smaller(b.add(i.get(), const(BLOCK)), size)

        def unfinished() -> Value:
            return b.and_(b.icmp_signed("<", i.get(), end), b.fcmp_ordered("<=", passed.get(), target))

        with repeat(e, unfinished):
            weight = e.load(F32, b.add(weights, b.mul(i.get(), const(4))), 4)
            passed.set(b.fadd(passed.get(), b.fpext(weight, F64)))
            positive = b.fcmp_ordered(">", weight, ir.Constant(F32, 0.0))
            found.set(b.select(positive, i.get(), found.get()))
            i.set(b.add(i.get(), const(1)))
        b.ret(found.get())
