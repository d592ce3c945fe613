"""`Form`: what is fixed in the code of one variant of the kernels, and the scratch memory of a piece.

Knows no instructions. A piece is some rows (queries times the heads that share keys) over some positions, which it
walks in strips. The scratch memory holds the strip's keys and values as the arithmetic wants them:

    "float"     float32 numbers; everything that the others do not cover
    "bf16"      pairs of bfloat16 in 32-bit words, for processors with dot products of such pairs
    "int16"     pairs of int16, over int8 storage and for 16-bit activations

A unit of a product is a word: one element, or a pair. Pairs of head elements are neighbours as they are stored, but
every second one of four in int16; pairs of positions lie one register apart.
"""

from dataclasses import dataclass
from functools import cached_property

STORAGE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "fp8": 1}
LARGEST_HEAD = 256
RUN = 4  # neighbouring positions, at multiples of their number, that lie in one block
# Positions that a split of a sequence has, at multiples of it.
SPLIT = 256


def rows_of(head_size: int) -> int:
    """The most rows of a piece: what is held for them is about the size of the strip's keys and values."""
    return 64 if head_size <= 128 else 32


@dataclass(frozen=True)
class Form:
    """A variant.

    Attributes:
        kind: of queries and output, by `Emit`'s names.
        storage: of keys and values: the same, "int8" or "fp8".
        arithmetic: see the module.
        lanes: 32-bit lanes of a register; divides head_size.
    """

    kind: str
    storage: str
    head_size: int
    arithmetic: str
    lanes: int

    @property
    def strip(self) -> int:
        """Positions, at multiples of their number."""
        return 4 * self.lanes

    @property
    def rows(self) -> int:
        return rows_of(self.head_size)

    @property
    def quantized(self) -> bool:
        return self.storage in ("int8", "fp8")

    @property
    def pairs(self) -> bool:
        return self.arithmetic != "float"

    @property
    def itemsize(self) -> int:
        return STORAGE_BYTES[self.kind]

    @property
    def row_bytes(self) -> int:
        """Of a token's key, or value, of one head."""
        return self.head_size * STORAGE_BYTES[self.storage]

    @property
    def vectors(self) -> int:
        """Registers that hold a head as float32."""
        return self.head_size // self.lanes

    @property
    def key_units(self) -> int:
        return self.head_size // 2 if self.pairs else self.head_size

    @property
    def value_units(self) -> int:
        return self.strip // 2 if self.pairs else self.strip

    @property
    def partial_bytes(self) -> int:
        """Of a row that other splits belong to: its sums, its maximum and its sum of weights."""
        return 4 * (self.head_size + 2)

    @cached_property
    def scratch(self) -> "Scratch":
        return Scratch(self)


class Scratch:
    """Offsets in the scratch memory of a piece.

    Attributes:
        places: of two places, which this strip and the next have in turn, of `place_bytes`. In a place are
        offsets: int64 [strip], bytes from the start of keys, and of values, to each position's row.
        key_scales, value_scales: float32 [strip]; the latter of int16 arithmetic are shares of `value_peak`.
        value_peak: float32, over int16's largest.
        query: words [rows, key_units].
        query_scales: float32 [rows], of int16 arithmetic.
        keys: words [key_units, strip].
        values: words [value_units, head_size].
        scores: float32 [rows, strip]; then the weights, words [rows, value_units] with the same distance of rows.
        sums: float32 [rows, head_size].
        maxima, fades, gains: float32 [rows]: of scores; what the sums are multiplied by at this strip; what the
            strip's own are multiplied by, of int16 arithmetic.
        weights: float32 [rows, lanes], sums of weights.
        nbytes: of all.
    """

    def __init__(self, form: Form) -> None:
        rows, strip, size = form.rows, form.strip, form.head_size
        self.nbytes = 0

        def room(numbers: int, nbytes: int = 4) -> int:
            start = self.nbytes
            self.nbytes += -(-numbers * nbytes // 64) * 64
            return start

        self.offsets = room(strip, 8)
        self.key_scales, self.value_scales, self.value_peak = room(strip), room(strip), room(1)
        self.place_bytes, self.nbytes = self.nbytes, 0
        self.places = room(2 * self.place_bytes, 1)
        self.query, self.query_scales = room(rows * form.key_units), room(rows)
        self.keys, self.values = room(form.key_units * strip), room(form.value_units * size)
        self.scores, self.sums = room(rows * strip), room(rows * size)
        self.maxima, self.fades, self.gains = room(rows), room(rows), room(rows)
        self.weights = room(rows * form.lanes)
