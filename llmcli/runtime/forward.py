"""From a `Step` to the tensors of a forward pass."""

import torch

from llmcli.model.forward_batch import ForwardBatch
from llmcli.scheduler.step import Step
from llmcli_kernels.paged_attention import AttentionBatch


def build_batch(step: Step, block_size: int) -> ForwardBatch:
    """Flatten the slices of a step into one row per token."""
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
    return ForwardBatch(
        token_ids=torch.tensor(token_ids, dtype=torch.int64),
        positions=positions,
        slots=blocks * block_size + positions % block_size,
        attention=AttentionBatch(
            query_starts=tuple(starts), kv_lens=tuple(part.end for part in step.slices), block_tables=tables
        ),
        sample_rows=torch.tensor(
            [starts[i + 1] - 1 for i, part in enumerate(step.slices) if part.sample is not None],
            dtype=torch.int64,
        ),
    )


def _positions(step: Step, starts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row its position in its sequence, and which slice it belongs to; both [T] int64."""
    counts = torch.tensor([len(part.token_ids) for part in step.slices], dtype=torch.int64)
    sequences = torch.repeat_interleave(torch.arange(len(step.slices)), counts)
    offsets = torch.tensor([part.start - start for part, start in zip(step.slices, starts, strict=False)])
    return torch.arange(starts[-1]) + offsets[sequences], sequences
