"""From logits to the next tokens: the sampling kernel, log-probabilities, and random numbers.

Random numbers depend on (seed, output position, choice) alone, so that a result does not depend on the batch. What is
drawn stays on the device until somebody reads it, and nothing here waits for the device before.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli.outputs import Logprob, TokenLogprobs
from llmcli.runtime.adjustments import Pending, adjust
from llmcli.runtime.transfer import column, to_device
from llmcli.scheduler.step import SampledToken, SampleSpec
from llmcli_kernels import KernelSet
from llmcli_kernels.sampling import SamplingBatch

_KEY = struct.Struct("<QQQ")


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was drawn for R rows of logits; all tensors are on one device.

    Attributes:
        tokens: [2, R] int64: the ids, and 1 for each row that is finite.
        logprobs: of the rows that ask for them, in order: log-probability [L] and rank [L] of the token that was drawn,
            log-probabilities [L, K] and ids [L, K] of the most likely tokens. Empty where no row asks.
    """

    tokens: Tensor
    logprobs: tuple[Tensor, ...] = ()


def sample(
    logits: Tensor, specs: Sequence[SampleSpec], seq_ids: Sequence[int], kernels: KernelSet
) -> list[SampledToken]:
    """Draw one token for each row of logits [R, vocab_size] float32; the rows are changed in place."""
    drawn = draw(logits, specs, kernels)
    return read(drawn.tokens.cpu(), [part.cpu() for part in drawn.logprobs], specs, seq_ids)


def draw(
    logits: Tensor, specs: Sequence[SampleSpec], kernels: KernelSet, pending: Pending | None = None
) -> Drawn:
    """Draw one token for each row of logits [R, vocab_size] float32; the rows are changed in place.

    Args:
        pending: the tokens that histories lack.
    """
    asking = asking_rows(specs)
    raw = None
    if asking:
        (rows,) = to_device((column(asking, torch.int64),), logits.device)
        raw = torch.log_softmax(logits[rows], dim=-1)
    adjust(logits, specs, pending)
    ids, finite = kernels.sample(logits, _sampling_batch(specs, logits.device))
    tokens = torch.stack((ids, finite.to(ids.dtype)))
    if raw is None:
        return Drawn(tokens)
    most = max(specs[row].params.logprobs or 0 for row in asking)
    return Drawn(tokens, _logprobs(raw, ids[rows], most))


def read(
    tokens: Tensor, logprobs: Sequence[Tensor], specs: Sequence[SampleSpec], seq_ids: Sequence[int]
) -> list[SampledToken]:
    """What was drawn, as plain values.

    Args:
        tokens, logprobs: those of a `Drawn`, on the CPU.
    """
    ids, finite = tokens.tolist()
    sampled = [
        SampledToken(seq_id, token_id, None, bool(ok))
        for seq_id, token_id, ok in zip(seq_ids, ids, finite, strict=True)
    ]
    if logprobs:
        columns = zip(*(part.tolist() for part in logprobs), strict=True)
        for row, (value, rank, top_values, top_ids) in zip(asking_rows(specs), columns, strict=True):
            token = sampled[row]
            if token.finite:
                count = specs[row].params.logprobs or 0
                best = zip(top_ids[:count], top_values[:count], range(1, count + 1), strict=False)
                entries = TokenLogprobs(
                    Logprob(token.token_id, value, rank), tuple(Logprob(*entry) for entry in best)
                )
                sampled[row] = SampledToken(token.seq_id, token.token_id, entries)
    return sampled


def asking_rows(specs: Sequence[SampleSpec]) -> list[int]:
    """The rows whose log-probabilities are asked for."""
    return [row for row, spec in enumerate(specs) if spec.params.logprobs is not None]


def is_plain(spec: SampleSpec) -> bool:
    """Whether the kernel alone draws the token: nothing changes the logits first, and nobody asks for them."""
    params = spec.params  # the history is there where it is used
    changes = spec.prompt_ids or spec.banned_ids or params.logit_bias or spec.allowed is not None
    return not (changes or params.logprobs is not None)


def uniform(seed: int, position: int, choice: int) -> float:
    """A number in [0, 1) that depends on its three keys only: 53 bits of BLAKE2b."""
    digest = hashlib.blake2b(_KEY.pack(seed, position, choice), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def sampling_parameters(specs: Sequence[SampleSpec]) -> tuple[list[float], ...]:
    """A number for each row: the fields of a `SamplingBatch` in order."""
    params = [spec.params for spec in specs]
    return (
        [p.temperature for p in params],
        [p.top_k for p in params],
        [p.top_p for p in params],
        [p.min_p for p in params],
        [0.0 if s.params.temperature == 0 else uniform(s.seed, s.position, s.choice) for s in specs],
    )


def _sampling_batch(specs: Sequence[SampleSpec], device: torch.device) -> SamplingBatch:
    dtypes = (torch.float32, torch.int64, torch.float32, torch.float32, torch.float64)
    pairs = zip(sampling_parameters(specs), dtypes, strict=True)
    return SamplingBatch(*to_device([column(*pair) for pair in pairs], device))


def _logprobs(raw: Tensor, ids: Tensor, count: int) -> tuple[Tensor, ...]:
    """What `Drawn.logprobs` holds, from log-probabilities [L, vocab_size] and the ids [L] that were drawn."""
    values = raw.gather(1, ids[:, None])
    ranks = (raw > values).sum(dim=1) + 1
    top_values, top_ids = raw.topk(min(count, raw.shape[1]), dim=1)
    return values[:, 0], ranks, top_values, top_ids
