"""What the kernels are meant to reach on an H200, as data, and whether a run reached it.

Every target is a ratio, or a time, within one run, so that it does not depend on the clocks of the day. The
formulas that they come from, for a matrix of N x K weights, M rows, groups of 128, B bytes per second read from
memory and F float16 operations per second:

    time of an int4 layer   max(N·K·0.5195 / B, 2·M·N·K / F) + t0     4.156 bits a weight: 4 + 16/128 + 4/128
    time of a float16 one   max(N·K·2 / B, 2·M·N·K / F) + t0          t0: 1.3 to 2 µs a kernel in a CUDA graph
    ideal ratio             2 / 0.5195 = 3.85 while M < 0.26·F/B, then falling to 1 at M = F/B
    dequantise first        costs 215/M of the product itself: 0.5195·N·K read, 2·N·K written and read again
    decode attention        Σ kv_len · 2 · kv_heads · head_size · bytes / B
    causal prefill          4 · heads · head_size · Σ (queries · keys seen) operations / F

On an H200 (B = 4.8e12, F = 989e12) int4 is bound by memory up to 54 rows and float16 up to 206. The targets take
85% of B, 1.5 µs of t0 and four fifths of cuBLAS where arithmetic decides.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]
Range = tuple[float, float]
INFINITE = float("inf")
MEANT_FOR = "NVIDIA H200"


@dataclass(frozen=True)
class Target:
    """One line of the table.

    Attributes:
        operation: of the benchmark rows that it is for.
        figure: name of the figure in them that is judged.
        bound: what the figure must reach, or stay at or below where `at_most`.
        says: the cases, in words.
        why: where the bound comes from.
        sizes: bounds, both included, of the sizes of the rows.
    """

    operation: str
    figure: str
    bound: float
    says: str
    why: str
    sizes: Mapping[str, Range] = field(default_factory=dict)
    at_most: bool = False

    def is_for(self, row: Row) -> bool:
        sizes = row.get("sizes", {})
        fits = all(low <= sizes.get(name, -1) <= high for name, (low, high) in self.sizes.items())
        measured = row.get("figures", {}).get(self.figure) is not None
        return row.get("operation") == self.operation and fits and measured

    def met_by(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


def at_least(low: float) -> Range:
    return (low, INFINITE)


def exactly(value: float) -> Range:
    return (value, value)


BANDWIDTH = "share of read bandwidth"
VS_CUBLAS = "x cuBLAS float16"
VS_TINYGEMM = "x torch int4"
VS_GEMLITE = "x gemlite"
VS_SDPA_PAGES = "x SDPA with gathered pages"
VS_SDPA_FLASH = "x SDPA flash"
VS_FLOAT16_CACHE = "x float16 cache"
VS_IN_TURN = "x one after the other"
VS_SORT = "x torch sort"
TIME_US = "µs"
OF_LOADING = "share of copying to the GPU"

LARGE = 45e6  # bytes of packed weights
MIDDLE = 26e6

TARGETS: tuple[Target, ...] = (
    Target(
        "int4_linear",
        BANDWIDTH,
        0.70,
        "M up to 8, matrices of 45 MB and more",
        "the best published int4 kernel reaches 42% for a whole model on an H100",
        {"m": (1, 8), "weight_bytes": at_least(LARGE)},
    ),
    Target(
        "int4_linear",
        VS_CUBLAS,
        2.6,
        "M = 1, matrices of 26 MB and more",
        "3.2 to 3.6 expected",
        {"m": exactly(1), "weight_bytes": at_least(MIDDLE)},
    ),
    Target(
        "int4_linear",
        VS_CUBLAS,
        2.2,
        "M = 1, smaller matrices",
        "2.6 expected: t0 counts more",
        {"m": exactly(1), "weight_bytes": (0, MIDDLE)},
    ),
    Target("int4_linear", VS_CUBLAS, 2.5, "M = 16", "memory-bound still", {"m": exactly(16)}),
    Target("int4_linear", VS_CUBLAS, 2.2, "M = 32", "memory-bound still", {"m": exactly(32)}),
    Target("int4_linear", VS_CUBLAS, 1.7, "M = 64", "3.2 ideal, arithmetic-bound", {"m": exactly(64)}),
    Target("int4_linear", VS_CUBLAS, 1.1, "M = 128", "1.6 ideal", {"m": exactly(128)}),
    Target(
        "int4_linear",
        VS_CUBLAS,
        0.8,
        "M = 256 to 1024",
        "1.0 ideal; published kernels reach 0.3 to 0.7",
        {"m": (256, 1024)},
    ),
    Target("int4_linear", VS_CUBLAS, 0.88, "M = 2048", "1 - 215/M", {"m": exactly(2048)}),
    Target("int4_linear", VS_CUBLAS, 0.9, "M above 2048", "1 - 215/M", {"m": at_least(2049)}),
    Target("int4_linear", VS_TINYGEMM, 1.0, "every M", "ahead of torch's own operator"),
    Target("int4_linear", VS_GEMLITE, 1.0, "every M", "ahead of the best Triton kernels published"),
    Target(
        "attend", VS_IN_TURN, 1.0, "every batch that decodes", "a launch less, and more work in the other"
    ),
    Target(
        "attention_decode",
        BANDWIDTH,
        0.80,
        "context of 2k and more, 256 pairs of sequence and key head",
        "published kernels reach 90%",
        {"context": at_least(2048), "pairs": at_least(256), "kv_bits": exactly(16)},
    ),
    Target(
        "attention_decode",
        BANDWIDTH,
        0.65,
        "one sequence, context of 32k",
        "all parallelism is in the split",
        {"context": at_least(32768), "batch": exactly(1), "kv_bits": exactly(16)},
    ),
    Target(
        "attention_decode",
        VS_SDPA_PAGES,
        2.0,
        "context of 2k and more",
        "gathering reads and writes the cache once more",
        {"context": at_least(2048), "kv_bits": exactly(16)},
    ),
    Target(
        "attention_decode",
        VS_FLOAT16_CACHE,
        1.6,
        "cache in 8 bits, context of 8k and more",
        "half of the bytes",
        {"context": at_least(8192), "kv_bits": exactly(8)},
    ),
    Target(
        "attention_prefill",
        VS_SDPA_FLASH,
        1.0,
        "causal, 2k to 16k tokens",
        "the same operations, from pages",
        {"tokens": (2048, 16384)},
    ),
    Target(
        "sampling",
        TIME_US,
        20.0,
        "batch 1, 128k tokens",
        "eight passes over logits in the L2 cache",
        {"batch": exactly(1)},
        at_most=True,
    ),
    Target(
        "sampling",
        TIME_US,
        60.0,
        "batch 64, 128k tokens",
        "33 MB, eight passes from the L2 cache",
        {"batch": exactly(64)},
        at_most=True,
    ),
    Target(
        "sampling",
        VS_SORT,
        5.0,
        "top-k and top-p",
        "a sort is some forty passes",
        {"filtered": exactly(1)},
    ),
    Target(
        "repack",
        OF_LOADING,
        0.05,
        "of the time in which the same bytes reach the GPU",
        "reads and writes the packed weights once",
        at_most=True,
    ),
)


@dataclass(frozen=True)
class Verdict:
    """A target and what a run says of it.

    Attributes:
        met: None where no case of it was measured.
        worst, case: the figure that is furthest on the wrong side, and where it was measured.
        cases, cases_met: how many there were, and how many reached the bound.
    """

    target: Target
    met: bool | None
    worst: float | None = None
    case: str = ""
    cases: int = 0
    cases_met: int = 0

    @property
    def short_by(self) -> float | None:
        """By which share of the bound the worst case misses it."""
        if self.worst is None or self.met:
            return None
        return abs(self.worst / self.target.bound - 1)

    def as_row(self) -> Row:
        target, short_by = self.target, self.short_by
        return {
            "operation": target.operation,
            "figure": target.figure,
            "at_most" if target.at_most else "at_least": target.bound,
            "cases_are": target.says,
            "why": target.why,
            "met": self.met,
            "worst": self.worst,
            "worst_case": self.case,
            "short_by": None if short_by is None else round(short_by, 3),
            "cases": self.cases,
            "cases_met": self.cases_met,
        }


def judge(rows: Iterable[Row], targets: Sequence[Target] = TARGETS) -> list[Verdict]:
    """Hold every target against the benchmark rows that it is for."""
    known = list(rows)
    return [_verdict(target, [row for row in known if target.is_for(row)]) for target in targets]


def _verdict(target: Target, rows: list[Row]) -> Verdict:
    if not rows:
        return Verdict(target, None)
    found = [(row["figures"][target.figure], row["case"]) for row in rows]
    worst, case = (max if target.at_most else min)(found)
    met = sum(target.met_by(value) for value, _ in found)
    return Verdict(target, met == len(found), worst, case, len(found), met)
