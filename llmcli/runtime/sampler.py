"""From logits to the next tokens: penalties and bans, the sampling kernel, log-probabilities.

Random numbers depend on (seed, output position, choice) alone, so that a result does not depend on the batch. What is
drawn stays on the device until somebody reads it, and nothing here waits for the device before.
"""

import hashlib
import math
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llmcli.outputs import Logprob, TokenLogprobs
from llmcli.runtime.transfer import to_device
from llmcli.scheduler.step import SampledToken, SampleSpec
from llmcli_kernels import KernelSet
from llmcli_kernels.sampling import SamplingBatch

_KEY = struct.Struct("<QQQ")
# For each byte of a mask what is added to the logits of its eight tokens: minus infinity where a bit is 0.
_BANS = torch.where(
    (torch.arange(256, device="cpu")[:, None] >> torch.arange(8, device="cpu")) & 1 == 1, 0.0, -torch.inf
)


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


def draw(logits: Tensor, specs: Sequence[SampleSpec], kernels: KernelSet) -> Drawn:
    """Draw one token for each row of logits [R, vocab_size] float32; the rows are changed in place."""
    asking = asking_rows(specs)
    raw = None
    if asking:
        (rows,) = to_device((_column(asking, torch.int64),), logits.device)
        raw = torch.log_softmax(logits[rows], dim=-1)
    adjust(logits, specs)
    _ban_all_but_allowed(logits, specs)
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
    return SamplingBatch(*to_device([_column(*pair) for pair in pairs], device))


def _column(numbers: Sequence[float], dtype: torch.dtype) -> Tensor:
    """On the CPU, whatever torch's default device is."""
    return torch.tensor(numbers, dtype=dtype, device="cpu")


def _ban_all_but_allowed(logits: Tensor, specs: Sequence[SampleSpec]) -> None:
    """Ban what the masks of some rows do not allow; all masks are unpacked together, on the logits' device."""
    masks = {i: spec.allowed for i, spec in enumerate(specs) if spec.allowed is not None}
    if not masks:
        return
    packed = torch.frombuffer(bytearray(b"".join(masks.values())), dtype=torch.uint8).view(len(masks), -1)
    rows, packed, bans = to_device((_column(list(masks), torch.int64), packed, _BANS), logits.device)
    logits.index_add_(0, rows, bans[packed.long()].flatten(1)[:, : logits.shape[1]])


@dataclass(slots=True)
class _Entries:
    """Places in the logits, each at most once, with a number for each."""

    rows: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)

    def add(self, row: int, ids: Collection[int], numbers: Iterable[float]) -> None:
        self.rows.extend([row] * len(ids))
        self.ids.extend(ids)
        self.numbers.extend(numbers)


def adjust(logits: Tensor, specs: Sequence[SampleSpec]) -> None:
    """Apply penalties, biases and bans in place, in this order; rows without any cost next to nothing."""
    seen, counted, biased, banned = kinds = (_Entries(), _Entries(), _Entries(), _Entries())
    for row, spec in enumerate(specs):
        params = spec.params
        if params.uses_history:
            if params.repetition_penalty != 1.0:
                ids = {*spec.prompt_ids, *spec.output_ids}
                seen.add(row, ids, [params.repetition_penalty] * len(ids))
            counts = Counter(spec.output_ids)
            amounts = [params.frequency_penalty * n + params.presence_penalty for n in counts.values()]
            counted.add(row, counts, amounts)
        if params.logit_bias:
            biased.add(row, params.logit_bias, params.logit_bias.values())
        if spec.banned_ids:
            banned.add(row, spec.banned_ids, [-math.inf] * len(spec.banned_ids))
    if not any(kind.rows for kind in kinds):
        return
    parts = []
    for kind in kinds:
        parts += [_column(kind.rows, torch.int64), _column(kind.ids, torch.int64)]
        parts.append(_column(kind.numbers, torch.float32))
    there = to_device(parts, logits.device)
    at = [(there[first], there[first + 1]) for first in range(0, len(there), 3)]
    penalties, amounts_there, biases, minus_infinity = there[2::3]
    if seen.rows:
        values = logits[at[0]]
        logits[at[0]] = torch.where(values > 0, values / penalties, values * penalties)
    if counted.rows:
        logits[at[1]] -= amounts_there
    if biased.rows:
        logits[at[2]] += biases
    if banned.rows:
        logits[at[3]] = minus_infinity


def _logprobs(raw: Tensor, ids: Tensor, count: int) -> tuple[Tensor, ...]:
    """What `Drawn.logprobs` holds, from log-probabilities [L, vocab_size] and the ids [L] that were drawn."""
    values = raw.gather(1, ids[:, None])
    ranks = (raw > values).sum(dim=1) + 1
    top_values, top_ids = raw.topk(min(count, raw.shape[1]), dim=1)
    return values[:, 0], ranks, top_values, top_ids
