"""The kernel that quantises rows to 8 bits and lays them out, read once from memory.

`int8_linear/native.py` tells the layout, and has the definition of every byte in torch: `pack`. A piece is a panel of
64 rows.

Words: WEIGHTS bfloat16 [PANELS * 64, GROUPS * 128]; RECORDS [PANELS, GROUPS]; SCALES float32 [PANELS * 64].
"""

from llvmlite import ir
from torch import Tensor

from llmcli_kernels.int4_linear.native.records import GROUP, PANEL, Layout
from llmcli_kernels.native.emit import F32, I8, I32, Emit, Value, const, splat
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import Stage, function, pieces_function, word, words
from llmcli_kernels.native.transpose import transpose_lanes

LANES = 8
INTS, FLOATS = ir.VectorType(I32, LANES), ir.VectorType(F32, LANES)
NAN, INFINITY = 0x7FC00000, 0x7F800000  # bits

WEIGHTS, RECORDS, SCALES, PANELS, GROUPS = range(5)  # words


def pack_stage(host: Host, weights: Tensor, records: Tensor, scales: Tensor) -> Stage:
    """bfloat16 [N', K], contiguous, to int8 records [N'/64, K/128, 8192] and float32 scales [N']."""
    compiled = host.compile("pack_bytes", lambda module, _: emit(module))
    addresses = (part.data_ptr() for part in (weights, records, scales))
    return Stage(compiled.kernel("pack_bytes"), words(*addresses, *records.shape[:2]))


def emit(module: ir.Module) -> None:
    """The kernel "pack_bytes"."""
    peak = _emit_peak(module)
    pieces_function(module, "pack_bytes", lambda e, args: word(e, args, PANELS))
    with function(module, "pack_bytes", 2) as (e, (args, panel)):
        b = e.b
        groups = word(e, args, GROUPS)
        row_bytes = b.mul(groups, const(2 * GROUP))
        weights = b.add(word(e, args, WEIGHTS), b.mul(panel, b.mul(row_bytes, const(PANEL))))
        scales = b.add(word(e, args, SCALES), b.mul(panel, const(4 * PANEL)))
        records = word(e, args, RECORDS)
        records = b.add(records, b.mul(b.mul(panel, groups), const(Layout(8).nbytes)))
        with e.each(const(0), const(PANEL), LANES) as row:
            first = b.add(weights, b.mul(row, row_bytes))
            rows = [b.add(first, b.mul(row_bytes, const(i))) for i in range(LANES)]
            inverses = []
            for i, at in enumerate(rows):
                scale, inverse = _scale(e, b.call(peak, [at, row_bytes]))
                e.store(scale, e.at(b.add(scales, b.mul(row, const(4))), 4 * i), 4)
                inverses.append(e.broadcast(inverse, LANES))
            out = b.add(records, b.mul(row, const(4)))
            # Each turn takes LANES words of every row; the words of all records follow each other.
            with e.each(const(0), b.mul(groups, const(GROUP // 4)), LANES) as first_word:
                at = b.mul(first_word, const(8))
                words_ = [
                    _words(e, b.add(row, at), inverse) for row, inverse in zip(rows, inverses, strict=True)
                ]
                to = b.add(out, b.mul(first_word, const(4 * PANEL)))
                for i, value in enumerate(transpose_lanes(e, words_)):
                    e.store(value, e.at(to, i * 4 * PANEL), 4)


def _emit_peak(module: ir.Module) -> ir.Function:
    """peak(row, bytes): the bits of the largest magnitude. Magnitudes compare as integers, a NaN as the largest."""
    with function(module, "peak", 2, I32, internal=True) as (e, (row, row_bytes)):
        b = e.b

        def larger(one: Value, two: Value) -> Value:
            return e.call(f"llvm.umax.v{LANES}i32", INTS, one, two)

        most = b.alloca(INTS)
        b.store(splat(I32, 0, LANES), most)
        with e.each(const(0), row_bytes, 2 * GROUP) as offset:
            at = b.add(row, offset)
            values = [
                b.bitcast(e.load_floats("bf16", e.at(at, 2 * k), LANES), INTS) for k in range(0, GROUP, LANES)
            ]
            sizes = [b.and_(value, splat(I32, 0x7FFFFFFF, LANES)) for value in values]
            b.store(larger(b.load(most), e.pairwise(larger, sizes)), most)
        b.ret(e.call(f"llvm.vector.reduce.umax.v{LANES}i32", I32, b.load(most)))
    return e.function


def _scale(e: Emit, peak: Value) -> tuple[Value, Value]:
    """A row's scale, NaN where the row has one or an infinity; and what to multiply by, 0 to keep nothing."""
    b = e.b
    infinity = ir.Constant(I32, INFINITY)
    finite = b.icmp_unsigned("<", peak, infinity)
    value = b.bitcast(peak, F32)
    scale = b.select(finite, b.fdiv(value, ir.Constant(F32, 127.0)), b.bitcast(ir.Constant(I32, NAN), F32))
    inverse = b.fmul(b.fdiv(ir.Constant(F32, 1.0), value), ir.Constant(F32, 127.0))
    usable = b.and_(finite, b.icmp_unsigned("<", b.bitcast(inverse, I32), infinity))
    return scale, b.select(usable, inverse, ir.Constant(F32, 0.0))


def _words(e: Emit, weights: Value, inverse: Value) -> Value:
    """LANES words of four weights each of a row; what is no number after scaling is 0."""
    b = e.b
    quarters = []
    for k in range(0, 4 * LANES, LANES):
        scaled = b.fmul(e.load_floats("bf16", e.at(weights, 2 * k), LANES), inverse)
        rounded = e.call(f"llvm.rint.v{LANES}f32", FLOATS, scaled)
        whole = e.call(f"llvm.fptosi.sat.v{LANES}i32.v{LANES}f32", INTS, rounded)
        quarters.append(b.trunc(whole, ir.VectorType(I8, LANES)))
    while len(quarters) > 1:
        count = 2 * quarters[0].type.count
        places = ir.Constant(ir.VectorType(I32, count), list(range(count)))
        quarters = [
            b.shuffle_vector(x, y, places) for x, y in zip(quarters[::2], quarters[1::2], strict=True)
        ]
    return b.bitcast(quarters[0], INTS)
