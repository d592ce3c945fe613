"""Passes over a list of logits: what the sampling kernel does to many numbers at a time.

A list is three words: its address, where its last vector is, and its size, whole vectors filled up with -inf. So a row
is a list as it lies in memory, but for a last vector that is a copy where the row's length is odd. Vectors are 16
numbers on every machine, and sums float64 in one order: the bits of a result do not depend on the machine. Knows no
parameter of sampling; `borders` and the package call these functions by name.
"""

from collections.abc import Callable

from llvmlite import ir

from llmcli_kernels.native.emit import F32, I16, I32, I64, Emit, Value, const, splat
from llmcli_kernels.native.kernel import function, word
from llmcli_kernels.native.math import exp, fma, larger, largest_lane, sum_lanes
from llmcli_kernels.sampling.native.scalars import F64, Variable, float_of, key_of, repeat

LANES = 16
GROUP = 16 * LANES  # logits whose maxima are kept, one of each lane
BLOCK = 512  # logits to a running sum

BASE, LAST, SIZE = range(3)  # words of a list
LIST_WORDS = 3
PEAK, INVERSE, INVERSE_REST = range(3)  # float32 in words, how logits become weights: 1 / T is the sum of two

NOT_A_NUMBER = 0x7FFFFFFF  # above the key of infinity
DEEPEST = -87.0  # e^DEEPEST is a normal number; smaller weights are 0

FLOATS, INTS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)


def emit_passes(module: ir.Module) -> None:
    for emit in (_emit_peak, _emit_count, _emit_collect, _emit_weigh, _emit_mass, _emit_settle):
        emit(module)


def place(e: Emit, numbers: Value, base: Value, size: Value) -> None:
    """Write the words of a list that lies in memory whole."""
    last = e.b.add(base, e.b.mul(const(4), e.b.sub(size, const(LANES))))
    for index, value in enumerate((base, last, size)):
        e.store(value, e.at(numbers, 8 * index), 8)


def first_lane(e: Emit, mask: Value) -> Value:
    """Bits of a mask that is not empty: the index of the lowest."""
    return e.call("llvm.cttz.i64", I64, mask, ir.Constant(ir.IntType(1), 1))


def bits_of(e: Emit, mask: Value) -> Value:
    return e.b.zext(e.b.bitcast(mask, I16), I64)


class Numbers:
    """A list, inside of a function."""

    def __init__(self, e: Emit, address: Value) -> None:
        self._e = e
        self.base, self.last, self.size = (word(e, address, i) for i in range(LIST_WORDS))
        self._last_index = e.b.sub(self.size, const(LANES))

    def address(self, i: Value) -> Value:
        b = self._e.b
        is_last = b.icmp_signed("==", i, self._last_index)
        return b.select(is_last, self.last, b.add(self.base, b.mul(i, const(4))))

    def load(self, i: Value) -> Value:
        return self._e.load(FLOATS, self.address(i), 4)


def _emit_peak(module: ir.Module) -> None:
    """peak(list, groups) -> key of the largest, or NOT_A_NUMBER; `groups` becomes the list of maxima.

    A group's vector is the maxima of its lanes. The last group is not empty.
    """
    with function(module, "peak", 2, I64, internal=True) as (e, (numbers, groups)):
        b, row = e.b, Numbers(e, numbers)
        maxima = word(e, groups, BASE)
        whole = b.and_(b.sub(row.size, const(LANES)), const(-GROUP))
        most, nans = Variable(e, splat(F32, float("-inf"), LANES)), Variable(e, const(0))
        with e.each(const(0), whole, GROUP) as i:
            start = b.add(row.base, b.mul(i, const(4)))
            vectors = [e.load(FLOATS, e.at(start, 4 * k), 4) for k in range(0, GROUP, LANES)]
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            unordered = e.pairwise(b.or_, [b.fcmp_unordered("uno", x, y) for x, y in pairs])
            nans.set(b.or_(nans.get(), bits_of(e, unordered)))
            group = e.pairwise(lambda x, y: larger(e, x, y), vectors)
            e.store(group, b.add(maxima, b.sdiv(i, const(GROUP // LANES // 4))), 4)
            most.set(larger(e, group, most.get()))
        group_so_far = Variable(e, splat(F32, float("-inf"), LANES))
        with e.each(whole, row.size, LANES) as i:
            values = row.load(i)
            nans.set(b.or_(nans.get(), bits_of(e, b.fcmp_unordered("uno", values, values))))
            group_so_far.set(larger(e, values, group_so_far.get()))
        e.store(group_so_far.get(), b.add(maxima, b.sdiv(whole, const(GROUP // LANES // 4))), 4)
        place(e, groups, maxima, b.add(b.sdiv(whole, const(GROUP // LANES)), const(LANES)))
        largest = b.extract_element(
            largest_lane(e, larger(e, group_so_far.get(), most.get())), ir.Constant(I32, 0)
        )
        largest = b.fadd(largest, ir.Constant(F32, 0.0))  # -0 becomes 0, which has the larger key
        is_number = b.icmp_signed("==", nans.get(), const(0))
        b.ret(b.select(is_number, key_of(e, largest), const(NOT_A_NUMBER)))


def _emit_count(module: ir.Module) -> None:
    """count(list, key) -> how many are at least that."""
    with function(module, "count", 2, I64, internal=True) as (e, (numbers, border)):
        b, row, sums = e.b, Numbers(e, numbers), Variable(e, splat(I32, 0, LANES))
        least = e.broadcast(float_of(e, border), LANES)
        with e.each(const(0), row.size, LANES) as i:
            reached = b.fcmp_ordered(">=", row.load(i), least)
            sums.set(b.sub(sums.get(), b.sext(reached, INTS)))
        b.ret(b.sext(e.call(f"llvm.vector.reduce.add.v{LANES}i32", I32, sums.get()), I64))


def _emit_collect(module: ir.Module) -> None:
    """collect(list, low, high, chosen, places) -> how many; low and high are keys.

    Those of at least `low` and less than `high` become the list `chosen`, and `places`, int32, their indices.
    """
    with function(module, "collect", 5, I64, internal=True) as (e, (numbers, low, high, chosen, places)):
        b, row, found = e.b, Numbers(e, numbers), Variable(e, const(0))
        values_at = word(e, chosen, BASE)
        least, limit = (e.broadcast(float_of(e, border), LANES) for border in (low, high))
        bits = Variable(e, const(0))
        with e.each(const(0), row.size, LANES) as i:
            values, address = row.load(i), row.address(i)
            inside = b.and_(b.fcmp_ordered(">=", values, least), b.fcmp_ordered("<", values, limit))
            bits.set(bits_of(e, inside))
            with repeat(e, lambda: b.icmp_signed("!=", bits.get(), const(0))):
                lane, n = first_lane(e, bits.get()), b.mul(found.get(), const(4))
                value = e.load(F32, b.add(address, b.mul(lane, const(4))), 4)
                e.store(value, b.add(values_at, n), 4)
                e.store(b.trunc(b.add(i, lane), I32), b.add(places, n), 4)
                found.set(b.add(found.get(), const(1)))
                bits.set(b.and_(bits.get(), b.sub(bits.get(), const(1))))
        filling = splat(F32, float("-inf"), LANES)
        e.store(filling, b.add(values_at, b.mul(found.get(), const(4))), 4)
        place(e, chosen, values_at, b.and_(b.add(found.get(), const(LANES - 1)), const(-LANES)))
        b.ret(found.get())


def _emit_weigh(module: ir.Module) -> None:
    """weigh(list, weights, running, floor, scale) -> float64, the sum; floor is a key, scale PEAK and the following.

    e^((logit - peak) / T), 0 for less than the floor. `running` is the sum up to the end of each block.
    """
    with function(module, "weigh", 5, F64, internal=True) as (e, (numbers, weights, running, floor, scale)):
        b, row = e.b, Numbers(e, numbers)
        least = e.broadcast(float_of(e, floor), LANES)
        peak, inverse, rest = (e.broadcast(e.load(F32, e.at(scale, 8 * i), 8), LANES) for i in range(3))

        def weight(i: Value) -> Value:
            values = row.load(i)
            depth, error = _product(e, *_difference(e, values, peak), inverse, rest)
            near = exp(e, depth)
            kept = b.and_(
                b.fcmp_ordered(">", depth, splat(F32, DEEPEST, LANES)), b.fcmp_ordered(">=", values, least)
            )
            result = b.select(kept, fma(e, near, error, near), splat(F32, 0.0, LANES))
            e.store(result, b.add(weights, b.mul(i, const(4))), 4)
            return result

        b.ret(_summed(e, row.size, running, weight))


def _emit_mass(module: ir.Module) -> None:
    """mass(list, weights, key, count_at) -> float64, what those at least that weigh; stores how many they are."""
    with function(module, "mass", 4, F64, internal=True) as (e, (numbers, weights, border, count_at)):
        b, row = e.b, Numbers(e, numbers)
        least, reached, sums = e.broadcast(float_of(e, border), LANES), Variable(e, const(0)), _Sums(e)
        with e.each(const(0), row.size, LANES) as i:
            kept = b.fcmp_ordered(">=", row.load(i), least)
            reached.set(b.add(reached.get(), e.call("llvm.ctpop.i64", I64, bits_of(e, kept))))
            values = e.load(FLOATS, b.add(weights, b.mul(i, const(4))), 4)
            sums.add(b.select(kept, values, splat(F32, 0.0, LANES)))
        e.store(reached.get(), count_at, 8)
        b.ret(sums.total())


def _emit_settle(module: ir.Module) -> None:
    """settle(list, weights, running, border, last) -> float64, the sum; border is a key, last an index.

    Keeps the weights of those above the border, and of those that equal it up to the last; the others become 0.
    """
    with function(module, "settle", 5, F64, internal=True) as (e, (numbers, weights, running, border, last)):
        b, row = e.b, Numbers(e, numbers)
        least, last = e.broadcast(float_of(e, border), LANES), e.broadcast(b.trunc(last, I32), LANES)
        lanes = ir.Constant(INTS, list(range(LANES)))

        def weight(i: Value) -> Value:
            values, address = row.load(i), b.add(weights, b.mul(i, const(4)))
            in_time = b.icmp_signed("<=", b.add(lanes, e.broadcast(b.trunc(i, I32), LANES)), last)
            equal = b.and_(b.fcmp_ordered("==", values, least), in_time)
            kept = b.or_(b.fcmp_ordered(">", values, least), equal)
            result = b.select(kept, e.load(FLOATS, address, 4), splat(F32, 0.0, LANES))
            e.store(result, address, 4)
            return result

        b.ret(_summed(e, row.size, running, weight))


class _Sums:
    """Sums of float32 vectors in float64, a sum for each lane."""

    def __init__(self, e: Emit) -> None:
        self._e = e
        self._halves = [Variable(e, splat(F64, 0.0, LANES // 2)) for _ in range(2)]

    def clear(self) -> None:
        for half in self._halves:
            half.set(splat(F64, 0.0, LANES // 2))

    def add(self, values: Value) -> None:
        b = self._e.b
        for half, first in zip(self._halves, (0, LANES // 2), strict=True):
            picked = ir.Constant(ir.VectorType(I32, LANES // 2), list(range(first, first + LANES // 2)))
            wide = b.fpext(b.shuffle_vector(values, values, picked), ir.VectorType(F64, LANES // 2))
            half.set(b.fadd(half.get(), wide))

    def total(self) -> Value:
        low, high = (half.get() for half in self._halves)
        return sum_lanes(self._e, self._e.b.fadd(low, high))


def _summed(e: Emit, size: Value, running: Value, vector: Callable[[Value], Value]) -> Value:
    """The sum of vector(i) for all i; the sum up to the end of each block is stored."""
    b, total, sums = e.b, Variable(e, ir.Constant(F64, 0.0)), _Sums(e)
    with e.each(const(0), size, BLOCK) as start:
        sums.clear()
        with e.each(start, e.smaller(b.add(start, const(BLOCK)), size), LANES) as i:
            sums.add(vector(i))
        total.set(b.fadd(total.get(), sums.total()))
        e.store(total.get(), b.add(running, b.sdiv(start, const(BLOCK // 8))), 8)
    return total.get()


def _difference(e: Emit, x: Value, y: Value) -> tuple[Value, Value]:
    """x - y rounded, and what rounding lost (Knuth's TwoSum)."""
    b = e.b
    difference = b.fsub(x, y)
    part = b.fsub(difference, x)
    lost = b.fsub(b.fsub(x, b.fsub(difference, part)), b.fadd(y, part))
    return difference, lost


def _product(e: Emit, x: Value, x_rest: Value, y: Value, y_rest: Value) -> tuple[Value, Value]:
    """(x + x_rest) (y + y_rest) rounded, and nearly all that rounding lost."""
    product = e.b.fmul(x, y)
    lost = fma(e, x, y, e.b.fneg(product))
    return product, fma(e, x_rest, y, fma(e, x, y_rest, lost))
