"""The memory in which one row after the other is sampled, and calls of the functions that work on it."""

from llmcli_kernels.native.emit import Emit, Value, const
from llmcli_kernels.native.kernel import word
from llmcli_kernels.sampling.native.passes import LANES, LIST_WORDS

BYTES_OF_ARRAY = 0  # a word, first of all
BORDERS, SCALE, COUNT = 8, 24, 48  # offsets of what `top_p`, `weigh` and `mass` are given addresses of,
TAIL = 64  # of the last vector of a row of odd length,
LISTS = 128  # and of the lists
LIST_ORDER = ROW, GROUPS, CHOSEN, DOUBTFUL = range(4)
HEAD_BYTES = 256

ARRAY_ORDER = (
    MAXIMA,  # of the groups
    RUNNING,  # float64, a sum for each block
    WEIGHTS,
    CHOSEN_VALUES,
    CHOSEN_PLACES,  # int32, in the row
    DOUBTFUL_VALUES,
    DOUBTFUL_PLACES,  # int32, in the list that is drawn from
    DOUBTFUL_WEIGHTS,
) = range(8)


def array_bytes(vocabulary: int) -> int:
    """Room for any of the arrays: the vocabulary in whole vectors, and a vector more; whole cache lines."""
    return -(-4 * (vocabulary + 2 * LANES) // 64) * 64


def slot_bytes(vocabulary: int) -> int:
    return HEAD_BYTES + len(ARRAY_ORDER) * array_bytes(vocabulary)


class Slot:
    """Inside of a function: where things are."""

    def __init__(self, e: Emit, address: Value) -> None:
        self._e, self.address = e, address
        offsets = (BORDERS, SCALE, COUNT, TAIL)
        self.borders, self.scale, self.count, self.tail = (e.at(address, offset) for offset in offsets)

    def array(self, index: int) -> Value:
        offset = self._e.b.mul(word(self._e, self.address, BYTES_OF_ARRAY), const(index))
        return self._e.b.add(self._e.at(self.address, HEAD_BYTES), offset)

    def list(self, index: int) -> Value:
        return self._e.at(self.address, LISTS + 8 * LIST_WORDS * index)


def call(e: Emit, name: str, *args: Value) -> Value:
    """A function of the same module."""
    return e.b.call(e.b.module.globals[name], args)
