"""Which tokens are kept: every filter is a border on logits, found by bisection.

top-k's border is a key with enough logits at or above it; top-p's a key, and the last of the tokens that equal it;
min-p's is computed. Knows how to find them, not in which order they apply.
"""

from llvmlite import ir

from llmcli_kernels.native.emit import F32, I32, I64, Emit, Value, const
from llmcli_kernels.native.kernel import function, word
from llmcli_kernels.sampling.native.passes import BASE, SIZE
from llmcli_kernels.sampling.native.scalars import (
    ALL,
    F64,
    LOWEST,
    Variable,
    double,
    exponent,
    float_of,
    key_at_or_above,
    key_of,
    larger,
    log,
    repeat,
)
from llmcli_kernels.sampling.native.slot import (
    DOUBTFUL,
    DOUBTFUL_PLACES,
    DOUBTFUL_VALUES,
    DOUBTFUL_WEIGHTS,
    WEIGHTS,
    Slot,
    call,
)

FEW = 1024  # tokens in doubt: from there on, they are searched alone
PASSES = 20  # over all tokens at most, to get there
LN2_ABOVE = 0.6932


def emit_borders(module: ir.Module) -> None:
    for emit in (_emit_kth, _emit_narrow, _emit_top_p):
        emit(module)


def min_p_border(e: Emit, min_p: Value, temperature: Value, peak: Value) -> Value:
    """The key that tokens of min_p times the largest weight reach, peak + T ln(min_p); ALL without min_p."""
    b = e.b
    wanted = b.fcmp_ordered(">", min_p, double(0.0))
    height = b.fmul(temperature, log(e, b.select(wanted, min_p, double(1.0))))
    border = key_at_or_above(e, b.fadd(b.fpext(float_of(e, peak), F64), height))
    border = e.smaller(larger(e, border, const(LOWEST)), peak)
    return b.select(wanted, border, const(ALL))


def _emit_kth(module: ir.Module) -> None:
    """kth(list, low, high, k, enough) -> a key that k to `enough` numbers reach, else the k-th largest; or `low`."""
    with function(module, "kth", 5, I64, internal=True) as (e, (numbers, low, high, k, enough)):
        b, low, high = e.b, Variable(e, low), Variable(e, high)
        with repeat(e, lambda: _apart(e, low, high)):
            middle = _middle(e, low, high)
            reached = call(e, "count", numbers, middle)
            is_low = b.icmp_signed(">=", reached, k)
            done = b.and_(is_low, b.icmp_signed("<=", reached, enough))
            low.set(b.select(is_low, middle, low.get()))
            high.set(b.select(is_low, b.select(done, b.add(middle, const(1)), high.get()), middle))
        b.ret(low.get())


def _emit_narrow(module: ir.Module) -> None:
    """narrow(slot, list, goal bits, borders) -> float64: moves the keys at `borders` closer together.

    What weighs at least the goal reaches the lower one; what reaches the upper weighs less, and is the result. Steps
    are even in logits, which is even in the logarithms of weights.
    """
    with function(module, "narrow", 4, F64, internal=True) as (e, (slot, numbers, goal, borders)):
        b, at, goal = e.b, Slot(e, slot), e.b.bitcast(goal, F64)
        low, high = (Variable(e, word(e, borders, i)) for i in range(2))
        reach_low, reach_high = Variable(e, word(e, numbers, SIZE)), Variable(e, const(0))
        above, passes = Variable(e, double(0.0)), Variable(e, const(PASSES))

        def many() -> Value:
            doubtful = b.sub(reach_low.get(), reach_high.get())
            left = b.icmp_signed(">", passes.get(), const(0))
            return b.and_(left, b.icmp_signed(">", doubtful, const(FEW)))

        with repeat(e, many):
            ends = [b.fpext(float_of(e, border.get()), F64) for border in (low, high)]
            middle = key_of(e, b.fptrunc(b.fmul(b.fadd(*ends), double(0.5)), F32))
            between = b.and_(b.icmp_signed(">", middle, low.get()), b.icmp_signed("<", middle, high.get()))
            middle = b.select(between, middle, low.get())
            mass = call(e, "mass", numbers, at.array(WEIGHTS), middle, at.count)
            reached = e.load(I64, at.count, 8)
            is_low = b.or_(b.fcmp_ordered(">=", mass, goal), b.not_(between))
            for variable, value, chosen in (
                (low, middle, is_low),
                (reach_low, reached, is_low),
                (high, middle, b.not_(is_low)),
                (reach_high, reached, b.not_(is_low)),
                (above, mass, b.not_(is_low)),
            ):
                variable.set(b.select(chosen, value, variable.get()))
            passes.set(b.select(between, b.sub(passes.get(), const(1)), const(0)))
        for index, border in enumerate((low, high)):
            e.store(border.get(), e.at(borders, 8 * index), 8)
        b.ret(above.get())


def _emit_top_p(module: ir.Module) -> None:
    """top_p(slot, list, goal bits, borders) -> the last token that is kept of those that equal the border.

    At `borders`: keys that the border is between; then the border itself, which is the largest key that tokens which
    weigh the goal reach.
    """
    with function(module, "top_p", 4, I64, internal=True) as (e, (slot, numbers, goal, borders)):
        b, at = e.b, Slot(e, slot)
        above = Variable(e, call(e, "narrow", slot, numbers, goal, borders))
        goal = b.bitcast(goal, F64)
        low, high = (Variable(e, word(e, borders, i)) for i in range(2))
        found = _collect_doubtful(e, at, numbers, low.get(), high.get())
        sure = above.get()
        with repeat(e, lambda: _apart(e, low, high)):
            middle = _middle(e, low, high)
            rest = call(e, "mass", at.list(DOUBTFUL), at.array(DOUBTFUL_WEIGHTS), middle, at.count)
            mass = b.fadd(sure, rest)
            is_low = b.fcmp_ordered(">=", mass, goal)
            low.set(b.select(is_low, middle, low.get()))
            high.set(b.select(is_low, high.get(), middle))
            above.set(b.select(is_low, above.get(), mass))
        e.store(low.get(), borders, 8)
        b.ret(_last_of_equals(e, at, found, float_of(e, low.get()), above, goal))


def top_p_start(e: Emit, top_p: Value, temperature: Value, peak: Value, vocabulary: Value) -> Value:
    """A key below which all tokens together weigh less than top_p leaves out.

    They are V at most, and e^-depth each; less than (1 - top_p) / 2 where depth is ln(2 V / (1 - top_p)) or more.
    """
    b = e.b
    bits = b.sub(const(65), e.call("llvm.ctlz.i64", I64, vocabulary, ir.Constant(ir.IntType(1), 0)))
    left_out = exponent(e, b.fsub(double(1.0), top_p))
    depth = b.fmul(double(LN2_ABOVE), b.sitofp(b.sub(bits, left_out), F64))
    start = b.fsub(b.fpext(float_of(e, peak), F64), b.fmul(temperature, depth))
    return larger(e, b.sub(key_at_or_above(e, start), const(1)), const(LOWEST))


def _collect_doubtful(e: Emit, at: Slot, numbers: Value, low: Value, high: Value) -> Value:
    """The tokens between two keys become a list, with weights; returns their number."""
    b, doubtful = e.b, at.list(DOUBTFUL)
    e.store(at.array(DOUBTFUL_VALUES), e.at(doubtful, 8 * BASE), 8)
    places, weights, all_weights = (at.array(i) for i in (DOUBTFUL_PLACES, DOUBTFUL_WEIGHTS, WEIGHTS))
    found = call(e, "collect", numbers, low, high, doubtful, places)
    with e.each(const(0), found) as i:
        offset = b.mul(i, const(4))
        place = b.sext(e.load(I32, b.add(places, offset), 4), I64)
        e.store(e.load(F32, b.add(all_weights, b.mul(place, const(4))), 4), b.add(weights, offset), 4)
    return found


def _last_of_equals(e: Emit, at: Slot, found: Value, border: Value, above: Variable, goal: Value) -> Value:
    """The index of the last token that equals the border and before which less than the goal has passed."""
    b, last = e.b, Variable(e, const(-1))
    values, weights, places = (at.array(i) for i in (DOUBTFUL_VALUES, DOUBTFUL_WEIGHTS, DOUBTFUL_PLACES))
    with e.each(const(0), found) as i:
        offset = b.mul(i, const(4))
        equal = b.fcmp_ordered("==", e.load(F32, b.add(values, offset), 4), border)
        wanted = b.and_(equal, b.fcmp_ordered("<", above.get(), goal))
        with b.if_then(wanted):
            last.set(b.sext(e.load(I32, b.add(places, offset), 4), I64))
            weight = b.fpext(e.load(F32, b.add(weights, offset), 4), F64)
            above.set(b.fadd(above.get(), weight))
    return last.get()


def _apart(e: Emit, low: Variable, high: Variable) -> Value:
    return e.b.icmp_signed(">", e.b.sub(high.get(), low.get()), const(1))


def _middle(e: Emit, low: Variable, high: Variable) -> Value:
    return e.b.ashr(e.b.add(low.get(), high.get()), const(1))
