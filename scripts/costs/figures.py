"""From the timings of all rounds to medians and spreads. Called by `scripts/bench_costs.py`."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scripts.costs.points import Point
from scripts.costs.timed_runner import LM_HEAD, PARTS, REST, Timing


@dataclass(frozen=True, slots=True)
class Round:
    """One time through all points.

    Attributes:
        read_bytes_per_s: the memory's read bandwidth just before.
        timings: of every point.
        meter: what other processes took meanwhile, see `scripts/peers/meter.py`.
    """

    read_bytes_per_s: float
    timings: Mapping[Point, Timing]
    meter: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Figure:
    """A point over all rounds; where it says nothing else, the median.

    Attributes:
        seconds: of every round.
        roofline_s: bytes that must be read over the read bandwidth.
        reached: that over the time, taken within a round.
        shares: of the time, see `Timing.shares`.
    """

    point: Point
    read_bytes: int
    seconds: tuple[float, ...]
    roofline_s: float
    reached: float
    shares: Mapping[str, float]

    @classmethod
    def of(cls, point: Point, read_bytes: int, rounds: Sequence[Round]) -> "Figure":
        timings = [each.timings[point] for each in rounds]
        rooflines = [read_bytes / each.read_bytes_per_s for each in rounds]
        shares = [timing.shares() for timing in timings]
        return cls(
            point=point,
            read_bytes=read_bytes,
            seconds=tuple(timing.whole for timing in timings),
            roofline_s=statistics.median(rooflines),
            reached=statistics.median(
                roofline / timing.whole for roofline, timing in zip(rooflines, timings, strict=True)
            ),
            shares={part: statistics.median(each[part] for each in shares) for part in shares[0]},
        )

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def tokens_per_s(self) -> float:
        return self.point.batch * self.point.tokens / self.median_s

    def record(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            **asdict(self.point),
            "median_s": self.median_s,
            "min_s": min(self.seconds),
            "max_s": max(self.seconds),
            "tokens_per_s": self.tokens_per_s,
            "read_bytes": self.read_bytes,
            "roofline_s": self.roofline_s,
            "reached": self.reached,
            "shares": dict(self.shares),
            "seconds": list(self.seconds),
        }


def table(title: str, figures: Sequence[Figure]) -> list[str]:
    """Lines of text: a head, then one for each figure."""
    named = list(dict.fromkeys(PARTS.values()))
    found = [part for figure in figures for part in figure.shares]
    parts = [
        *dict.fromkeys(p for p in (*named, *found) if p in found and p not in (LM_HEAD, REST)),
        LM_HEAD,
        REST,
    ]
    heads = (
        f"{'ms':>9}",
        f"{'min..max':>19}",
        f"{'tok/s':>8}",
        f"{'MB read':>8}",
        f"{'roof ms':>8}",
        "reached",
    )
    lines = [title, "  ".join([f"{'batch':>5}  {'context':>7}", *heads, *(f"{part:>9}" for part in parts)])]
    for figure in figures:
        spread = f"{min(figure.seconds) * 1e3:.2f}..{max(figure.seconds) * 1e3:.2f}"
        cells = (
            f"{figure.point.batch:5d}  {figure.point.context:7d}",
            f"{figure.median_s * 1e3:9.2f}",
            f"{spread:>19}",
            f"{figure.tokens_per_s:8.1f}",
            f"{figure.read_bytes / 1e6:8.1f}",
            f"{figure.roofline_s * 1e3:8.2f}",
            f"{figure.reached:7.1%}",
        )
        lines.append("  ".join([*cells, *(f"{figure.shares[part]:9.1%}" for part in parts)]))
    return lines
