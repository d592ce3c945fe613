"""From measurements to medians and ratios. Pure: no files, no processes."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scripts.peers.rounds import Outcome

OURS = "llmcli"
DISTURBED = 0.05  # cores that others used, from which on a figure is marked


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of the rounds."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values), len(values))

    def as_dict(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def values(outcomes: Sequence[Outcome], peer: str, test: str) -> dict[int, float]:
    """Figures by round."""
    return {
        outcome.round: outcome.answer["value"]
        for outcome in outcomes
        if outcome.peer == peer and outcome.test == test and "value" in outcome.answer
    }


def spread(outcomes: Sequence[Outcome], peer: str, test: str) -> Spread | None:
    """None where nothing was measured."""
    measured = values(outcomes, peer, test)
    return Spread.of(list(measured.values())) if measured else None


def ratio(outcomes: Sequence[Outcome], peer: str, test: str) -> Spread | None:
    """llmcli's rate over the peer's, round by round and then the median; None where no round has both."""
    ours, theirs = values(outcomes, OURS, test), values(outcomes, peer, test)
    ratios = [ours[number] / theirs[number] for number in ours if number in theirs]
    return Spread.of(ratios) if ratios else None


def share_of_bandwidth(outcomes: Sequence[Outcome], test: str, bytes_per_step: int) -> Spread | None:
    """How much of the memory's read bandwidth llmcli's weights take when one sequence decodes, round by round."""
    answers = [outcome.answer for outcome in outcomes if (outcome.peer, outcome.test) == (OURS, test)]
    shares = [
        answer["value"] * bytes_per_step / answer["more"]["read_bandwidth"]
        for answer in answers
        if "read_bandwidth" in answer.get("more", {})
    ]
    return Spread.of(shares) if shares else None


def is_disturbed(answer: Mapping[str, Any]) -> bool:
    """Whether other processes, or other guests of the hypervisor, took a noticeable share of the processor."""
    meter = answer.get("meter")
    if not meter:
        return False
    others: float = (meter["other_cpu_s"] or 0) + (meter["steal_s"] or 0)
    return others > DISTURBED * float(meter["wall_s"])
