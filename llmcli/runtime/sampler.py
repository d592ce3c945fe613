"""From logits to the next tokens: penalties and bans, the sampling kernel, log-probabilities.

Random numbers depend on (seed, output position, choice) alone, so that a result does not depend on the batch.
"""

import hashlib
import struct
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from llmcli.outputs import Logprob, TokenLogprobs
from llmcli.runtime.transfer import to_device
from llmcli.scheduler.step import SampledToken, SampleSpec
from llmcli_kernels import KernelSet
from llmcli_kernels.sampling import SamplingBatch

# For each byte of a mask what is added to the logits of its eight tokens: minus infinity where a bit is 0.
_BANS = torch.where((torch.arange(256)[:, None] >> torch.arange(8)) & 1 == 1, 0.0, -torch.inf)


def sample(
    logits: Tensor, specs: Sequence[SampleSpec], seq_ids: Sequence[int], kernels: KernelSet
) -> list[SampledToken]:
    """Draw one token for each row of logits [R, vocab_size] float32; the rows are changed in place."""
    wants_logprobs = [i for i, spec in enumerate(specs) if spec.params.logprobs is not None]
    raw = {i: torch.log_softmax(logits[i], dim=-1) for i in wants_logprobs}
    for row, spec in zip(logits, specs, strict=True):
        _adjust(row, spec)
    _ban_all_but_allowed(logits, specs)
    ids, finite = kernels.sample(logits, _sampling_batch(specs, logits.device))
    if ids.is_cuda:  # one copy, and with it one wait
        ids, finite = torch.stack((ids, finite)).cpu()
    tokens = zip(seq_ids, ids.tolist(), finite.tolist(), strict=True)
    return [
        SampledToken(
            seq_id,
            token_id,
            _logprobs(raw[i], token_id, specs[i].params.logprobs or 0) if i in raw and ok else None,
            bool(ok),
        )
        for i, (seq_id, token_id, ok) in enumerate(tokens)
    ]


def uniform(seed: int, position: int, choice: int) -> float:
    """A number in [0, 1) that depends on its three keys only: 53 bits of BLAKE2b."""
    digest = hashlib.blake2b(struct.pack("<QQQ", seed, position, choice), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def _sampling_batch(specs: Sequence[SampleSpec], device: torch.device) -> SamplingBatch:
    params = [spec.params for spec in specs]
    uniforms = [0.0 if s.params.greedy else uniform(s.seed, s.position, s.choice) for s in specs]
    return SamplingBatch(
        *to_device(
            (
                torch.tensor([p.temperature for p in params], dtype=torch.float32),
                torch.tensor([p.top_k for p in params], dtype=torch.int64),
                torch.tensor([p.top_p for p in params], dtype=torch.float32),
                torch.tensor([p.min_p for p in params], dtype=torch.float32),
                torch.tensor(uniforms, dtype=torch.float64),
            ),
            device,
        )
    )


def _adjust(row: Tensor, spec: SampleSpec) -> None:
    """Apply penalties, biases and bans to one row [vocab_size] in place."""
    params = spec.params
    if params.uses_history:
        _penalise(row, spec)
    if params.logit_bias:
        biases = torch.tensor(list(params.logit_bias.values()), dtype=row.dtype, device=row.device)
        row.index_add_(0, _ids(params.logit_bias, row), biases)
    if spec.banned_ids:
        row[_ids(spec.banned_ids, row)] = -torch.inf


def _ban_all_but_allowed(logits: Tensor, specs: Sequence[SampleSpec]) -> None:
    """Ban what the masks of some rows do not allow; all masks are unpacked together, on the logits' device."""
    masks = {i: spec.allowed for i, spec in enumerate(specs) if spec.allowed is not None}
    if not masks:
        return
    packed = torch.frombuffer(bytearray(b"".join(masks.values())), dtype=torch.uint8).view(len(masks), -1)
    rows, packed, bans = to_device((torch.tensor(list(masks)), packed, _BANS), logits.device)
    logits.index_add_(0, rows, bans[packed.long()].flatten(1)[:, : logits.shape[1]])


def _penalise(row: Tensor, spec: SampleSpec) -> None:
    params = spec.params
    if params.repetition_penalty != 1.0:
        seen = _ids(sorted({*spec.prompt_ids, *spec.output_ids}), row)
        values = row[seen]
        row[seen] = torch.where(
            values > 0, values / params.repetition_penalty, values * params.repetition_penalty
        )
    if (params.frequency_penalty or params.presence_penalty) and spec.output_ids:
        ids, counts = _ids(spec.output_ids, row).unique(return_counts=True)
        row[ids] -= params.frequency_penalty * counts + params.presence_penalty


def _ids(ids: Collection[int], row: Tensor) -> Tensor:
    """Token ids as an index into `row`."""
    return torch.tensor(list(ids), dtype=torch.int64, device=row.device)


def _logprobs(row: Tensor, token_id: int, count: int) -> TokenLogprobs:
    """The sampled token's and the `count` best log-probabilities of a row [vocab_size]."""
    value = row[token_id]
    sampled = Logprob(token_id, float(value), int((row > value).sum()) + 1)
    values, ids = row.topk(min(count, len(row)))
    pairs = zip(ids.tolist(), values.tolist(), strict=True)
    return TokenLogprobs(sampled, tuple(Logprob(i, v, rank) for rank, (i, v) in enumerate(pairs, 1)))
