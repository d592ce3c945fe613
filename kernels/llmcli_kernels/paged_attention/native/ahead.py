"""Prefetching of the next strip's keys and values while this one is computed.

A block of pages is too small for the processor to see where the next one lies. A core waits for about two dozen lines
at a time, so they are asked for a few at a time: some while the strip is read, the others during its products.
"""

from llmcli_kernels.native.emit import I64, Emit, Value, const
from llmcli_kernels.paged_attention.native.form import RUN, Form

LINE = 64  # bytes of the cache


class Ahead:
    """The lines of a strip's keys, or values, in the order of positions.

    Attributes:
        lines: their number, a power of two; some may be asked for twice.
    """

    def __init__(self, form: Form) -> None:
        self._offsets = form.scratch.offsets
        self._per_run = _power_of_two(-(-RUN * form.row_bytes // LINE))
        self._step = RUN * form.row_bytes // self._per_run
        self.lines = form.strip // RUN * self._per_run

    def early(self, *, many_rows: bool) -> int:
        """How many to ask for while the strip is read: with many rows its products take longer."""
        return self.lines // (8 if many_rows else 2)

    def share(self, lines: int, turns: int) -> int:
        """How many to ask for at a time, for so many lines in so many turns."""
        return min(_power_of_two(-(-lines // turns)), self._per_run)

    def ask(self, e: Emit, place: Value, tensor: Value, line: Value, limit: Value, share: int) -> None:
        """`share` lines from `line` on, a multiple of it; none from `limit` on.

        Args:
            place: address of the next strip's place in scratch memory.
            tensor: address of all keys, or values.
        """
        b = e.b
        with b.if_then(b.icmp_signed("<", line, limit)):
            run = b.lshr(line, const(self._per_run.bit_length() - 1))
            row = e.load(I64, b.add(e.at(place, self._offsets), b.mul(run, const(8 * RUN))), 8)
            first = b.mul(b.and_(line, const(self._per_run - 1)), const(self._step))
            at = b.add(b.add(tensor, row), first)
            for i in range(share):
                e.prefetch(e.at(at, i * self._step))


def _power_of_two(number: int) -> int:
    """At least `number`."""
    return 1 << (number - 1).bit_length()
