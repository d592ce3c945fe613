"""A step's work, as the kernels read it: worked out once and used by every layer with the same window.

Called by whoever runs the kernels; knows lengths, not tensors of a layer.

The block is NUM_WORDS int64 that a layer's words point at: whoever runs many steps writes the numbers of the next one
over those of the last. A record is RECORD_WORDS int64, one for each sequence, in order:

    FIRST_UNIT          units of all sequences before; a unit is, for one key head, a tile of queries and a split
    ROW, QUERIES        the sequence's rows of queries
    POSITION            of its first query
    SPLITS              1, or how many for the only tile
    PARTIAL             the first of its rows in PARTIALS, if there are several splits

A tile has `rows_of(head_size)` rows at most, and a split the positions between two multiples of SPLIT: how a sequence
is cut depends on nothing but itself. Only where one tile has all queries is a sequence split.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli_kernels.native.kernel import words
from llmcli_kernels.paged_attention import AttentionBatch
from llmcli_kernels.paged_attention.native.form import SPLIT, rows_of

FIRST_UNIT, ROW, QUERIES, POSITION, SPLITS, PARTIAL = range(6)
RECORD_WORDS = 6
RECORDS, NUM_RECORDS, NUM_UNITS, TABLES, TABLE_WIDTH, PARTIALS, MERGED, NUM_MERGED = range(8)
NUM_WORDS = 8


@dataclass(frozen=True, eq=False)
class AttentionPlan:
    """Work of a step.

    Attributes:
        numbers: the NUM_WORDS of the block: addresses and counts, of what is below.
        records: int64 [S * RECORD_WORDS].
        merged: int64, the indices of the records with several splits.
        tables: int64 [S, width].
        partials: float32: sums of splits; may be handed to the next plan, for its memory.
    """

    numbers: tuple[int, ...]
    records: Tensor
    merged: Tensor
    tables: Tensor
    partials: Tensor

    def block(self) -> Tensor:
        """int64 [NUM_WORDS]."""
        return words(*self.numbers)


def plan(
    batch: AttentionBatch,
    *,
    kv_heads: int,
    group: int,
    head_size: int,
    window: int | None,
    partials: Tensor | None = None,
) -> AttentionPlan:
    """
    Args:
        group: query heads of a key head.
        partials: of an earlier plan that nobody runs any more.
    """
    tile = rows_of(head_size) // group
    starts = batch.query_starts
    records: list[int] = []
    merged: list[int] = []
    units = partial_rows = 0
    for index, kv_len in enumerate(batch.kv_lens):
        row = starts[index]
        queries = starts[index + 1] - row
        position = kv_len - queries
        if queries <= tile:
            first = 0 if window is None else max(0, position - window + 1)
            splits = (kv_len - 1) // SPLIT - first // SPLIT + 1
            records += (units, row, queries, position, splits, partial_rows)
            units += splits
            if splits > 1:
                merged.append(index)
                partial_rows += splits * kv_heads * queries * group
        else:
            records += (units, row, queries, position, 1, 0)
            units += -(-queries // tile)
    numbers = partial_rows * (head_size + 2)
    if partials is None or partials.numel() < numbers:
        partials = torch.empty(numbers, dtype=torch.float32)
    tables = batch.block_tables.to(torch.int64).contiguous()
    made, few = words(*records), words(*merged)
    return AttentionPlan(
        numbers=(
            made.data_ptr(),
            len(batch.kv_lens),
            units,
            tables.data_ptr(),
            tables.shape[1],
            partials.data_ptr(),
            few.data_ptr(),
            len(merged),
        ),
        records=made,
        merged=few,
        tables=tables,
        partials=partials,
    )
