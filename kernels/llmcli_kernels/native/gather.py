"""Rows of a matrix by their numbers: the embeddings of tokens, and of a step's rows those that are sampled.

A function of a row (`native/rowwise.py`) over the words

    SOURCE              address of [., ROW_BYTES] contiguous
    NUMBERS_AT          address of the address of int64 [rows], each the number of a row of SOURCE: not looked at
    OUT                 address of [rows, ROW_BYTES] contiguous
    ROW_BYTES           a multiple of LINE
"""

from llvmlite import ir

from llmcli_kernels.native.emit import I64, const
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import function, word, words
from llmcli_kernels.native.rowwise import RowStage

LINE = 64  # bytes
VECTOR = ir.VectorType(I64, LINE // 8)

SOURCE, NUMBERS_AT, OUT, ROW_BYTES = range(4)  # words


def gather_stage(host: Host, *, source: int, numbers_at: int, out: int, row_bytes: int) -> RowStage:
    """Rows of `source`; the words are explained above."""
    compiled = host.compile("gather", lambda module, _: emit(module))
    return RowStage("gather", compiled.address("gather"), words(source, numbers_at, out, row_bytes))


def emit(module: ir.Module) -> None:
    """The function "gather" (args, row)."""
    with function(module, "gather", 2) as (e, (args, row)):
        b, row_bytes = e.b, word(e, args, ROW_BYTES)
        numbers = word(e, word(e, args, NUMBERS_AT), 0)
        number = word(e, b.add(numbers, b.shl(row, const(3))), 0)
        source = b.add(word(e, args, SOURCE), b.mul(number, row_bytes))
        out = b.add(word(e, args, OUT), b.mul(row, row_bytes))
        with e.each(const(0), row_bytes, LINE) as at:
            e.store(e.load(VECTOR, b.add(source, at), 2), b.add(out, at), 2)
