"""Operations on rows, done row by row: all of them on one row, by one thread, before it takes the next.

So a row that one operation leaves is in the core's cache for the next, and there is one wait for all threads instead of
several. Owns how rows are shared out; an operation gives NAME(args, row), as `RowStage`.
"""

from typing import NamedTuple

from llvmlite import ir
from torch import Tensor

from llmcli_kernels.native.emit import I64, VOID, Emit, Value, const
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import Kernel, Stage, function, pieces_function, word, words

# Words; then, for each operation, the addresses of its function and of its words; then all these words.
ROWS_AT, THREADS, NUM_STAGES, STAGES = range(4)
PIECES_PER_THREAD = 2  # a thread that is held up leaves its share to the others
MOST_ROWS = 16  # of a piece


class RowStage(NamedTuple):
    """The address of a function (args, row), and its words, int64 [n]."""

    name: str
    function: int
    args: Tensor


def rowwise(host: Host, rows_at: int, *stages: RowStage) -> Stage:
    """The stages one after the other on each row; the number of rows is at an address."""
    compiled = host.compile("rowwise", lambda module, _: emit(module))
    first = STAGES + 2 * len(stages)
    entries = [0] * (2 * len(stages))
    args = words(
        rows_at, host.team.num_threads(), len(stages), *entries, *(w for s in stages for w in s.args.tolist())
    )
    for i, stage in enumerate(stages):
        args[STAGES + 2 * i] = stage.function
        args[STAGES + 2 * i + 1] = args.data_ptr() + 8 * first
        first += len(stage.args)
    name = " + ".join(stage.name for stage in stages)
    return Stage(Kernel(name, compiled.address("rowwise_pieces"), compiled.address("rowwise")), args)


def emit(module: ir.Module) -> None:
    """The kernel "rowwise"."""
    pieces_function(module, "rowwise", lambda e, args: e.divide_up(_rows(e, args), _per_piece(e, args)))
    with function(module, "rowwise", 2) as (e, (args, piece)):
        b, per_piece = e.b, _per_piece(e, args)
        first = b.mul(piece, per_piece)
        stop = e.smaller(b.add(first, per_piece), _rows(e, args))
        with e.each(first, stop) as row, e.each(const(0), word(e, args, NUM_STAGES)) as i:
            entry = e.at(b.add(args, b.shl(i, const(4))), 8 * STAGES)
            run = b.inttoptr(word(e, entry, 0), ir.FunctionType(VOID, [I64, I64]).as_pointer())
            b.call(run, [word(e, entry, 1), row])


def _rows(e: Emit, args: Value) -> Value:
    return word(e, word(e, args, ROWS_AT), 0)


def _per_piece(e: Emit, args: Value) -> Value:
    pieces = e.b.mul(word(e, args, THREADS), const(PIECES_PER_THREAD))
    rows = e.smaller(e.divide_up(_rows(e, args), pieces), const(MOST_ROWS))
    return e.b.select(e.b.icmp_signed("<", rows, const(1)), const(1), rows)
