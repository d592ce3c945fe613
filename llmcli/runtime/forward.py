"""From a `Step` to the tensors of a forward pass: worked out on the CPU, moved to the device in one copy."""

import torch

from llmcli.model.forward_batch import ForwardBatch
from llmcli.runtime.transfer import to_device
from llmcli.scheduler.step import Step
from llmcli_kernels.paged_attention import AttentionBatch

CPU = torch.device("cpu")


def build_batch(step: Step, block_size: int, device: torch.device = CPU) -> ForwardBatch:
    """Flatten the slices of a step into one row per token, for a model on `device`."""
    token_ids: list[int] = []
    starts = [0]
    for part in step.slices:
        token_ids.extend(part.token_ids)
        starts.append(len(token_ids))
    width = max(len(part.block_ids) for part in step.slices)
    tables = torch.tensor(
        [part.block_ids + (0,) * (width - len(part.block_ids)) for part in step.slices], dtype=torch.int64
    )
    positions, sequences = _positions(step, starts)
    blocks = tables[sequences, positions // block_size]
    sample_rows = [starts[i + 1] - 1 for i, part in enumerate(step.slices) if part.sample is not None]
    ids, positions, slots, tables, rows = to_device(
        (
            torch.tensor(token_ids, dtype=torch.int64),
            positions,
            blocks * block_size + positions % block_size,
            tables,
            torch.tensor(sample_rows, dtype=torch.int64),
        ),
        device,
    )
    return ForwardBatch(
        token_ids=ids,
        positions=positions,
        slots=slots,
        attention=AttentionBatch(
            query_starts=tuple(starts), kv_lens=tuple(part.end for part in step.slices), block_tables=tables
        ),
        sample_rows=rows,
    )


def _positions(step: Step, starts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row its position in its sequence, and which slice it belongs to; both [T] int64."""
    counts = torch.tensor([len(part.token_ids) for part in step.slices], dtype=torch.int64)
    sequences = torch.repeat_interleave(torch.arange(len(step.slices)), counts)
    offsets = torch.tensor([part.start - start for part, start in zip(step.slices, starts, strict=False)])
    return torch.arange(starts[-1]) + offsets[sequences], sequences
