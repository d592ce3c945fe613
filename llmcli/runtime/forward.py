"""From a `Step` to the tensors of a forward pass: worked out on the CPU, moved to the device in one copy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli.model.forward_batch import ForwardBatch
from llmcli.runtime.adjustments import Pending
from llmcli.runtime.sampler import Drawn
from llmcli.runtime.transfer import to_device
from llmcli.scheduler.step import SampleSpec, SequenceSlice, Step
from llmcli_kernels.paged_attention import AttentionBatch

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class LastDrawn:
    """What the step started last draws, as the next one reads it on the device.

    Attributes:
        ids: [R or more] int64.
        rows: of each sequence that draws, where its token is.
    """

    ids: Tensor
    rows: Mapping[int, int]


Drawing = Callable[[Step], Drawn]
"""Draws the tokens of a step whose logits are being computed; takes the step with all that drawing depends on."""


def specs_of(step: Step) -> list[SampleSpec]:
    """How each token of a step is drawn, in the order of the slices."""
    return [part.sample for part in step.slices if part.sample is not None]


def pending_tokens(step: Step, last: LastDrawn | None) -> Pending | None:
    """The tokens that the histories of a step's late slices lack; rows are those of the slices that draw."""
    if last is None:
        return None
    drawing = [part for part in step.slices if part.sample is not None]
    late = {row: part.seq_id for row, part in enumerate(drawing) if part.late}
    sources = {
        row: last.rows[seq_id]
        for row, seq_id in late.items()
        if (sample := drawing[row].sample) is not None and sample.params.uses_history
    }
    return Pending(last.ids, sources) if sources else None


def build_batch(
    step: Step, block_size: int, device: torch.device = CPU, last: LastDrawn | None = None
) -> ForwardBatch:
    """Flatten the slices of a step into one row per token, for a model on `device`.

    Lists, and a tensor of each in the end: a step of a few tokens is done before torch has started ten operations.

    Args:
        last: where the tokens of late slices are.
    """
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    starts, sample_rows = [0], []
    late_rows, sources = [], []
    for part in step.slices:
        if part.late:
            assert last is not None, "a slice is late, and no step has been started before"
            late_rows.append(len(token_ids))
            sources.append(last.rows[part.seq_id])
        token_ids.extend(part.token_ids)
        positions.extend(range(part.start, part.end))
        slots.extend(slots_of(part, block_size))
        starts.append(len(token_ids))
        if part.sample is not None:
            sample_rows.append(len(token_ids) - 1)
    width = max(len(part.block_ids) for part in step.slices)
    tables = [part.block_ids + (0,) * (width - len(part.block_ids)) for part in step.slices]
    lists = (token_ids, positions, slots, sample_rows, tables, late_rows, sources)
    tensors = [torch.tensor(numbers, dtype=torch.int64, device=CPU) for numbers in lists]
    ids_on, positions_on, slots_on, rows_on, tables_on, late_on, sources_on = to_device(tensors, device)
    if last is not None and late_rows:
        ids_on[late_on] = last.ids[sources_on]
    return ForwardBatch(
        token_ids=ids_on,
        positions=positions_on,
        slots=slots_on,
        attention=AttentionBatch(
            query_starts=tuple(starts),
            kv_lens=tuple(part.end for part in step.slices),
            block_tables=tables_on,
        ),
        sample_rows=rows_on,
    )


def slots_of(part: SequenceSlice, block_size: int) -> list[int]:
    """Where the keys and values of a slice go."""
    blocks = part.block_ids
    return [blocks[p // block_size] * block_size + p % block_size for p in range(part.start, part.end)]
