"""What is done to logits before a token is drawn: penalties, biases, bans and masks, for all rows at once.

A row's history may end with a token that is known to the device alone, because the step that draws it has not told yet
(`Pending`). Such a token counts like the others, and the numbers come out the same to the bit. Called by
`runtime/sampler.py`.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llmcli.runtime.transfer import column, to_device
from llmcli.scheduler.step import SampleSpec

# For each byte of a mask what is added to the logits of its eight tokens: minus infinity where a bit is 0.
_BANS = torch.where(
    (torch.arange(256, device="cpu")[:, None] >> torch.arange(8, device="cpu")) & 1 == 1, 0.0, -torch.inf
)


@dataclass(frozen=True, eq=False)
class Pending:
    """The last token of some rows' histories, on the device.

    Attributes:
        ids: int64.
        sources: row of the logits -> place in `ids`.
    """

    ids: Tensor
    sources: Mapping[int, int]


@dataclass(slots=True)
class _Entries:
    """Places in the logits, with a number for each."""

    rows: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)

    def add(self, row: int, ids: Collection[int], numbers: Iterable[float]) -> None:
        self.rows.extend([row] * len(ids))
        self.ids.extend(ids)
        self.numbers.extend(numbers)


def adjust(logits: Tensor, specs: Sequence[SampleSpec], pending: Pending | None = None) -> None:
    """Apply penalties, biases, bans and masks to logits [R, vocab_size], in place and in this order.

    Rows without any cost next to nothing.
    """
    sources = {} if pending is None else pending.sources
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
    late = _Late(specs, pending, logits) if pending is not None and sources else None
    if late is not None or any(kind.rows for kind in kinds):
        at, numbers = _on_device(kinds, logits.device)
        if late is not None:
            late.read(logits)
        if seen.rows:
            values = logits[at[0]]
            logits[at[0]] = torch.where(values > 0, values / numbers[0], values * numbers[0])
        if counted.rows:
            logits[at[1]] -= numbers[1]
        if late is not None:
            late.write(logits)
        if biased.rows:
            logits[at[2]] += numbers[2]
        if banned.rows:
            logits[at[3]] = numbers[3]
    _ban_all_but_allowed(logits, specs)


def _on_device(
    kinds: Iterable[_Entries], device: torch.device
) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """Of each kind its places, as an index of the logits, and its numbers; all in one copy."""
    parts = []
    for kind in kinds:
        parts += [column(kind.rows, torch.int64), column(kind.ids, torch.int64)]
        parts.append(column(kind.numbers, torch.float32))
    there = to_device(parts, device)
    return [(there[first], there[first + 1]) for first in range(0, len(there), 3)], there[2::3]


class _Late:
    """The penalties of tokens that only the device knows: each has its whole penalty worked out from its own logit.

    Such a token may be in the known history as well, and then it counts once more.
    """

    def __init__(self, specs: Sequence[SampleSpec], pending: Pending, logits: Tensor) -> None:
        rows = [row for row in pending.sources if specs[row].params.uses_history]
        params = [specs[row].params for row in rows]
        # The places of known tokens, and how often each is there: ids of all rows in one list.
        owners: list[int] = []
        known: list[int] = []
        times: list[int] = []
        for owner, row in enumerate(rows):
            counts = Counter(specs[row].output_ids)
            owners += [owner] * len(counts)
            known += counts
            times += counts.values()
        self._rows, sources, self._repetition, frequency, presence, owners_on, known_on, times_on = to_device(
            (
                column(rows, torch.int64),
                column([pending.sources[row] for row in rows], torch.int64),
                column([p.repetition_penalty for p in params], torch.float32),
                column([p.frequency_penalty for p in params], torch.float64),
                column([p.presence_penalty for p in params], torch.float64),
                column(owners, torch.int64),
                column(known, torch.int64),
                column(times, torch.float64),
            ),
            logits.device,
        )
        self._ids = pending.ids[sources]
        again = torch.where(known_on == self._ids[owners_on], times_on, 0.0)
        count = torch.ones_like(frequency).index_add_(0, owners_on, again)
        self._amounts = (frequency * count + presence).to(torch.float32)
        self._values = torch.empty(0)

    def read(self, logits: Tensor) -> None:
        """Before any penalty."""
        self._values = logits[self._rows, self._ids]

    def write(self, logits: Tensor) -> None:
        """After those of the known tokens."""
        values, penalty = self._values, self._repetition
        penalised = torch.where(values > 0, values / penalty, values * penalty)
        logits[self._rows, self._ids] = penalised - self._amounts


def _ban_all_but_allowed(logits: Tensor, specs: Sequence[SampleSpec]) -> None:
    """Ban what the masks of some rows do not allow; all masks are unpacked together, on the logits' device."""
    masks = {i: spec.allowed for i, spec in enumerate(specs) if spec.allowed is not None}
    if not masks:
        return
    packed = torch.frombuffer(bytearray(b"".join(masks.values())), dtype=torch.uint8).view(len(masks), -1)
    rows, packed, bans = to_device((column(list(masks), torch.int64), packed, _BANS), logits.device)
    logits.index_add_(0, rows, bans[packed.long()].flatten(1)[:, : logits.shape[1]])
