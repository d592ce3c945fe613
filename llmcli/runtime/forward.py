"""From a `Step` to the tensors of a forward pass: worked out on the CPU, moved to the device in one copy."""

import torch

from llmcli.model.forward_batch import ForwardBatch
from llmcli.runtime.transfer import to_device
from llmcli.scheduler.step import SequenceSlice, Step
from llmcli_kernels.paged_attention import AttentionBatch

CPU = torch.device("cpu")


def build_batch(step: Step, block_size: int, device: torch.device = CPU) -> ForwardBatch:
    """Flatten the slices of a step into one row per token, for a model on `device`.

    Lists, and a tensor of each in the end: a step of a few tokens is done before torch has started ten operations.
    """
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    starts, sample_rows = [0], []
    for part in step.slices:
        token_ids.extend(part.token_ids)
        positions.extend(range(part.start, part.end))
        slots.extend(_slots(part, block_size))
        starts.append(len(token_ids))
        if part.sample is not None:
            sample_rows.append(len(token_ids) - 1)
    width = max(len(part.block_ids) for part in step.slices)
    tables = [part.block_ids + (0,) * (width - len(part.block_ids)) for part in step.slices]
    lists = (token_ids, positions, slots, sample_rows, tables)
    tensors = [torch.tensor(numbers, dtype=torch.int64) for numbers in lists]
    ids_on, positions_on, slots_on, rows_on, tables_on = to_device(tensors, device)
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


def _slots(part: SequenceSlice, block_size: int) -> list[int]:
    """Where the keys and values of a slice go."""
    blocks = part.block_ids
    return [blocks[p // block_size] * block_size + p % block_size for p in range(part.start, part.end)]
