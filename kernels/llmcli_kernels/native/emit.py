"""Shorthands over llvmlite's instruction builder: addresses are int64, vectors are explicit.

Knows no kernel. Used by all code generators.
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager

from llvmlite import ir

I1, I8, I16, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
F16, F32 = ir.HalfType(), ir.FloatType()
VOID = ir.VoidType()
Value = ir.Value


def const(value: int) -> ir.Constant:
    """An int64."""
    return ir.Constant(I64, value)


def splat(lane: ir.Type, value: float, n: int) -> ir.Constant:
    return ir.Constant(ir.VectorType(lane, n), [ir.Constant(lane, value)] * n)


class Emit:
    """Emits into one function; `b` is the builder, for what has no shorthand."""

    def __init__(self, function: ir.Function) -> None:
        self.b = ir.IRBuilder(function.append_basic_block("entry"))
        self.function = function

    def block(self, name: str) -> ir.Block:
        return self.function.append_basic_block(name)

    def at(self, address: Value, offset: int) -> Value:
        return self.b.add(address, const(offset)) if offset else address

    def load(self, kind: ir.Type, address: Value, align: int) -> Value:
        value = self.b.load(self.b.inttoptr(address, kind.as_pointer()))
        value.align = align
        return value

    def store(self, value: Value, address: Value, align: int) -> None:
        self.b.store(value, self.b.inttoptr(address, value.type.as_pointer())).align = align

    def load_floats(self, kind: str, address: Value, lanes: int) -> Value:
        """`lanes` numbers stored as "fp32", "bf16" or "fp16", as float32; aligned to one of them."""
        b = self.b
        if kind == "fp32":
            return self.load(ir.VectorType(F32, lanes), address, 4)
        if kind == "fp16":
            return b.fpext(self.load(ir.VectorType(F16, lanes), address, 2), ir.VectorType(F32, lanes))
        bits = b.zext(self.load(ir.VectorType(I16, lanes), address, 2), ir.VectorType(I32, lanes))
        return b.bitcast(b.shl(bits, splat(I32, 16, lanes)), ir.VectorType(F32, lanes))

    def store_floats(self, kind: str, values: Value, address: Value) -> None:
        """float32 values rounded to the nearest, ties to even; a NaN stays one."""
        b, lanes = self.b, values.type.count
        if kind == "fp32":
            self.store(values, address, 4)
        elif kind == "fp16":
            self.store(b.fptrunc(values, ir.VectorType(F16, lanes)), address, 2)
        else:
            rounded = b.lshr(self._bfloat16_bits(values), splat(I32, 16, lanes))
            self.store(b.trunc(rounded, ir.VectorType(I16, lanes)), address, 2)

    def round_to(self, kind: str, values: Value) -> Value:
        """float32 values that `kind` can hold: rounded as `store_floats` does."""
        b, lanes = self.b, values.type.count
        if kind == "fp32":
            return values
        if kind == "fp16":
            return b.fpext(b.fptrunc(values, ir.VectorType(F16, lanes)), values.type)
        bits = b.and_(self._bfloat16_bits(values), splat(I32, 0xFFFF0000, lanes))
        return b.bitcast(bits, values.type)

    def _bfloat16_bits(self, values: Value) -> Value:
        """int32 [lanes]: the rounded value in the upper half, anything in the lower."""
        b, lanes = self.b, values.type.count
        bits = b.bitcast(values, ir.VectorType(I32, lanes))
        odd = b.and_(b.lshr(bits, splat(I32, 16, lanes)), splat(I32, 1, lanes))
        rounded = b.add(bits, b.add(odd, splat(I32, 0x7FFF, lanes)))
        return b.select(b.fcmp_unordered("uno", values, values), splat(I32, 0x7FC00000, lanes), rounded)

    def prefetch(self, address: Value) -> None:
        pointer = I8.as_pointer()
        kind = ir.FunctionType(VOID, [pointer, I32, I32, I32])
        fn = self.b.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        self.b.call(fn, [self.b.inttoptr(address, pointer)] + [ir.Constant(I32, v) for v in (0, 2, 1)])

    def call(self, name: str, result: ir.Type, *args: Value) -> Value:
        """An intrinsic, by its full name."""
        kind = ir.FunctionType(result, [arg.type for arg in args])
        return self.b.call(self.b.module.declare_intrinsic(name, (), kind), args)

    def external(self, name: str) -> ir.Function:
        """A function of the C library, () -> int32, that `compiled` knows."""
        found = self.b.module.globals.get(name)
        return found or ir.Function(self.b.module, ir.FunctionType(I32, []), name)

    def broadcast(self, scalar: Value, n: int) -> Value:
        empty = ir.Constant(ir.VectorType(scalar.type, n), ir.Undefined)
        vector = self.b.insert_element(empty, scalar, ir.Constant(I32, 0))
        return self.b.shuffle_vector(vector, vector, splat(I32, 0, n))

    def smaller(self, x: Value, y: Value) -> Value:
        return self.b.select(self.b.icmp_signed("<", x, y), x, y)

    def divide_up(self, x: Value, y: Value) -> Value:
        """x / y rounded up, for x >= 0 and y > 0."""
        return self.b.sdiv(self.b.add(x, self.b.sub(y, const(1))), y)

    def pairwise(self, combine: Callable[[Value, Value], Value], values: Sequence[Value]) -> Value:
        """All values combined as a balanced tree; their number is a power of two."""
        while len(values) > 1:
            values = [combine(x, y) for x, y in zip(values[::2], values[1::2], strict=True)]
        return values[0]

    def loop(
        self, start: int, stop: int, step: int, state: list, body: Callable[[Value, list], list]
    ) -> list:
        """for i in range(start, stop, step): state = body(i, state); at least one turn."""
        b, before = self.b, self.b.block
        head, end = self.block("loop"), self.block("end")
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(I64)
        phis = [b.phi(value.type) for value in state]
        out = body(i, phis)
        following = b.add(i, const(step))
        i.add_incoming(const(start), before)
        i.add_incoming(following, b.block)
        for phi, first, again in zip(phis, state, out, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(again, b.block)
        b.cbranch(b.icmp_signed("<", following, const(stop)), head, end)
        b.position_at_end(end)
        return out

    @contextmanager
    def each(self, start: Value, stop: Value, step: int | Value = 1):
        """with each(start, stop) as i: what is emitted inside is done for i in range(start, stop, step)."""
        b, before = self.b, self.b.block
        head, inside, end = self.block("each"), self.block("do"), self.block("out")
        b.branch(head)
        b.position_at_end(head)
        i = b.phi(I64)
        i.add_incoming(start, before)
        b.cbranch(b.icmp_signed("<", i, stop), inside, end)
        b.position_at_end(inside)
        yield i
        i.add_incoming(b.add(i, const(step) if isinstance(step, int) else step), b.block)
        b.branch(head)
        b.position_at_end(end)
