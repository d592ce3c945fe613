"""The kernels that make records: from rows (`Int4Weight`) and from columns (`Int4Columns`), read once and written once.

`records.pack` is their definition. A piece of "pack_rows" is a panel; one of "pack_columns" is a group of 128 k of up
to PANELS_PER_PIECE panels, so that neighbouring pieces read a file in its order. Both work on 8 lanes on every machine:
8 words of columns are the 64 rows of a panel, and turning 8 by 8 words in registers costs less than reading them.

Words: WEIGHTS, ZEROS, SCALES: the parts of the weight; RECORDS [PANELS, GROUPS]; REPEATS: neighbouring records that
share a scale; WIDTH: how many scales a row of the weight has.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from llvmlite import ir
from torch import Tensor

from llmcli_kernels import huge_pages
from llmcli_kernels.int4_linear import Int4Matrix, Int4Weight
from llmcli_kernels.int4_linear.forms import COLUMNS, Int4Columns, Int4Stack
from llmcli_kernels.int4_linear.native.records import GROUP, PANEL, Layout, PackedRecords
from llmcli_kernels.native.emit import I8, I16, I32, I64, Emit, Value, const, splat
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import Kernel, Stage, function, pieces_function, word, words
from llmcli_kernels.native.transpose import exchange, transpose_bytes, transpose_lanes

Part = Int4Weight | Int4Columns

PANELS_PER_PIECE = 16  # of "pack_columns": 512 bytes of a row of words
LANES = PANEL // COLUMNS
WORDS = ir.VectorType(I32, LANES)
RECORD_WORDS = GROUP // 8  # of a row

WEIGHTS, ZEROS, SCALES, RECORDS, PANELS, GROUPS, REPEATS, WIDTH = range(8)  # words


def parts_of(weight: Int4Matrix) -> tuple[Part, ...]:
    """A weight as the kernels take it: what shares no panel, one under the other."""
    if isinstance(weight, Int4Stack) and all(part.N % PANEL == 0 for part in weight.parts[:-1]):
        return weight.parts
    return (weight if isinstance(weight, Int4Columns) else weight.plain(),)


def to_records(host: Host, parts: Sequence[Part]) -> PackedRecords:
    """The records of `parts_of` a weight that `fits`."""
    k, group_size = parts[0].K, parts[0].group_size
    layout = Layout(4, min(group_size, GROUP))
    num_panels = [-(-part.N // PANEL) for part in parts]
    records = huge_pages.empty((sum(num_panels), k // GROUP, layout.nbytes), torch.uint8)
    stages, kept = [], []  # the tensors are kept until the stages have run
    for part, room in zip(parts, records.split(num_panels), strict=True):
        tensors = (*_filled(part), room)
        kept.append(tensors)
        args = words(
            *(tensor.data_ptr() for tensor in tensors),
            *(*room.shape[:2], max(1, group_size // GROUP), k // group_size),
        )
        stages.append(Stage(_kernel(host, layout, part), args))
    host.run(*stages)
    no_bias = torch.zeros(sum(num_panels) * PANEL, dtype=torch.bfloat16)
    return PackedRecords(records, no_bias, layout.group_size, sum(part.N for part in parts))


def _filled(weight: Part) -> tuple[Tensor, Tensor, Tensor]:
    """Nibbles, zeros and scales, contiguous, of whole panels: outputs of zeros are added where the last is not full."""
    missing = -weight.N % PANEL
    if isinstance(weight, Int4Columns):
        parts = (weight.words, weight.zeros, weight.scales)
        fills = ((0, missing // COLUMNS), (0, missing // COLUMNS), (0, missing))
    else:
        parts = (weight.q, weight.zeros, weight.scales)
        fills = ((0, 0, 0, missing),) * 3
    q, zeros, scales = (
        F.pad(part, fill) if missing else part.contiguous() for part, fill in zip(parts, fills, strict=True)
    )
    return q, zeros, scales


def _kernel(host: Host, layout: Layout, weight: Part) -> Kernel:
    if isinstance(weight, Int4Weight):
        rows = host.compile(f"pack_rows {layout.group_size}", lambda module, _: emit_rows(module, layout))
        return rows.kernel("pack_rows")
    order = weight.order
    columns = host.compile(
        f"pack_columns {layout.group_size} {order}", lambda module, _: emit_columns(module, layout, order)
    )
    return columns.kernel("pack_columns")


def emit_rows(module: ir.Module, layout: Layout) -> None:
    """The kernel "pack_rows": q [N, K/2], zeros and scales [N, WIDTH]."""
    pieces_function(module, "pack_rows", lambda e, args: word(e, args, PANELS))
    with function(module, "pack_rows", 2) as (e, (args, panel)):
        b = e.b
        groups, width = word(e, args, GROUPS), word(e, args, WIDTH)
        row_bytes = b.mul(groups, const(GROUP // 2))
        first_row = b.mul(panel, const(PANEL))
        with e.each(const(0), groups) as group:
            record = _record(e, args, layout, panel, group)
            weights = b.add(word(e, args, WEIGHTS), b.mul(first_row, row_bytes))
            weights = b.add(weights, b.mul(group, const(GROUP // 2)))
            with e.each(const(0), const(PANEL), LANES) as row:
                at = b.add(weights, b.mul(row, row_bytes))
                _words_of_rows(e, at, row_bytes, b.add(record, b.mul(row, const(4))))
            with e.each(const(0), const(PANEL)) as row:
                for part in range(layout.parts):
                    index = b.add(
                        b.mul(b.add(first_row, row), width), _scale_index(e, args, layout, group, part)
                    )
                    _copy_scale(e, args, layout, index, record, b.add(row, const(part * PANEL)))


def _words_of_rows(e: Emit, weights: Value, row_bytes: Value, out: Value) -> None:
    """Half a record's 128 k of 8 rows to the words of these rows in a record."""
    b = e.b
    bytes_ = ir.VectorType(I8, 4 * LANES)
    lower, upper = [], []
    for row in range(LANES):
        at = b.add(weights, b.mul(row_bytes, const(row)))
        first, second = e.load(WORDS, at, 1), e.load(WORDS, e.at(at, GROUP // 4), 1)
        even, odd = (b.bitcast(value, bytes_) for value in exchange(e, first, second, 4))
        for half, start in ((lower, 0), (upper, 2 * LANES)):
            places = [4 * LANES * (i % 2) + start + i // 2 for i in range(4 * LANES)]
            mixed = b.shuffle_vector(even, odd, ir.Constant(ir.VectorType(I32, 4 * LANES), places))
            half.append(b.bitcast(mixed, WORDS))
    for index, value in enumerate(transpose_lanes(e, lower) + transpose_lanes(e, upper)):
        e.store(value, e.at(out, index * PANEL * 4), 4)


def _copy_scale(e: Emit, args: Value, layout: Layout, index: Value, record: Value, to: Value) -> None:
    """A scale and its zero; `index` counts them in the weight, `to` in the record."""
    b = e.b
    scale = e.load(I16, b.add(word(e, args, SCALES), b.mul(index, const(2))), 2)
    e.store(scale, b.add(e.at(record, layout.scales), b.mul(to, const(2))), 2)
    zero = e.load(I8, b.add(word(e, args, ZEROS), index), 1)
    e.store(zero, b.add(e.at(record, layout.zeros), to), 1)


def emit_columns(module: ir.Module, layout: Layout, order: tuple[int, ...]) -> None:
    """The kernel "pack_columns": words [K, N/8], zeros [WIDTH, N/8], scales [WIDTH, N]."""

    def blocks(e: Emit, args: Value) -> Value:
        return e.b.sdiv(e.b.add(word(e, args, PANELS), const(PANELS_PER_PIECE - 1)), const(PANELS_PER_PIECE))

    pieces_function(module, "pack_columns", lambda e, args: e.b.mul(blocks(e, args), word(e, args, GROUPS)))
    with function(module, "pack_columns", 2) as (e, (args, piece)):
        b = e.b
        panels = word(e, args, PANELS)
        row_bytes = b.mul(panels, const(4 * LANES))
        group = b.sdiv(piece, blocks(e, args))
        first = b.mul(b.srem(piece, blocks(e, args)), const(PANELS_PER_PIECE))
        with e.each(first, e.smaller(b.add(first, const(PANELS_PER_PIECE)), panels)) as panel:
            record = _record(e, args, layout, panel, group)
            column = b.mul(panel, const(4 * LANES))
            weights = b.add(
                b.add(word(e, args, WEIGHTS), column), b.mul(group, b.mul(row_bytes, const(GROUP)))
            )
            with e.each(const(0), const(RECORD_WORDS)) as index:
                at = b.add(weights, b.mul(index, b.mul(row_bytes, const(4))))
                _words_of_columns(e, at, row_bytes, b.add(record, b.mul(index, const(4 * PANEL))), order)
            for part in range(layout.parts):
                row = b.mul(_scale_index(e, args, layout, group, part), row_bytes)
                scales = b.add(word(e, args, SCALES), b.mul(b.add(row, column), const(4)))
                _copy(e, scales, e.at(record, layout.scales + 2 * PANEL * part), 2 * PANEL)
                zeros = e.load(WORDS, b.add(word(e, args, ZEROS), b.add(row, column)), 1)
                e.store(_bytes_of_columns(e, zeros, order), e.at(record, layout.zeros + PANEL * part), 1)


def _words_of_columns(e: Emit, weights: Value, row_bytes: Value, out: Value, order: tuple[int, ...]) -> None:
    """Four k, and the four that are 64 further, of 64 columns to a word of each row in a record."""
    b = e.b
    low, high = [], []  # nibbles of each byte: of one k in the low one, of that 64 further in the high one
    for k in range(4):
        first, second = (
            e.load(WORDS, b.add(weights, b.mul(row_bytes, const(k + further))), 1)
            for further in (0, GROUP // 2)
        )
        pairs = exchange(e, first, second, 4)
        low.append(pairs[0])
        high.append(pairs[1])
    by_nibble = [
        value
        for pair in zip(transpose_bytes(e, low), transpose_bytes(e, high), strict=True)
        for value in pair
    ]
    by_column = [by_nibble[order.index(column)] for column in range(COLUMNS)]
    for index, value in enumerate(transpose_lanes(e, by_column)):
        e.store(value, e.at(out, index * 4 * COLUMNS), 4)


def _bytes_of_columns(e: Emit, values: Value, order: tuple[int, ...]) -> Value:
    """<8 x i32> of eight nibbles each as <8 x i64>, a byte for each column."""
    b, wide = e.b, ir.VectorType(I64, LANES)
    total = splat(I64, 0, LANES)
    for nibble, column in enumerate(order):
        value = b.and_(b.lshr(values, splat(I32, 4 * nibble, LANES)), splat(I32, 15, LANES))
        total = b.or_(total, b.shl(b.zext(value, wide), splat(I64, 8 * column, LANES)))
    return total


def _copy(e: Emit, source: Value, target: Value, size: int) -> None:
    for offset in range(0, size, 32):
        e.store(e.load(WORDS, e.at(source, offset), 1), e.at(target, offset), 1)


def _record(e: Emit, args: Value, layout: Layout, panel: Value, group: Value) -> Value:
    index = e.b.add(e.b.mul(panel, word(e, args, GROUPS)), group)
    return e.b.add(word(e, args, RECORDS), e.b.mul(index, const(layout.nbytes)))


def _scale_index(e: Emit, args: Value, layout: Layout, group: Value, part: int) -> Value:
    """Which of a row's scales a part of a record has."""
    b = e.b
    return e.at(b.mul(b.sdiv(group, word(e, args, REPEATS)), const(layout.parts)), part)
