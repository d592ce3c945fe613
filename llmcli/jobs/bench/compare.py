"""`bench compare`: two results side by side, each ratio with its uncertainty.

Rows pair by test and batch. A ratio is a ratio of speeds, after / before: above 1 the second result is faster,
for times as for rates. Its 95 % interval is Welch's on the logarithms of the runs (`bench_stats.ratio_of` says why).
Refuses to compare results of different models, types or machines, unless told which of these may differ. Knows no
table and no plot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmcli.errors import UsageError, quote
from llmcli.jobs.bench.result import Row, read_rows
from llmcli.jobs.bench.stats import Ratio, ratio_of

# What must be the same, by the name that --force takes: fields of the environment record.
MUST_MATCH: Mapping[str, tuple[str, ...]] = {
    "model": ("model", "revision", "architecture", "quantization"),
    "dtype": ("dtype", "kv_cache_dtype", "lm_head"),
    "machine": ("cpu", "cores", "memory_bytes", "device", "gpu"),
}
# What is told when it differs: most often the reason for comparing.
TOLD = (
    "llmcli",
    "commit",
    "torch",
    "python",
    "platform",
    "threads",
    "kernels",
    "block_size",
    "max_num_seqs",
    "max_num_batched_tokens",
    "prefix_caching",
    "async_scheduling",
    "cuda_graphs",
)
MEMORY_SLACK = 0.02  # the same machine reports a little more or less after an update of its system


@dataclass(frozen=True, slots=True)
class Pair:
    """One test of both results.

    Attributes:
        speed: of `after` to `before`; above 1 is faster. None where a side has no runs, or one that is not above 0.
    """

    before: Row
    after: Row
    speed: Ratio | None

    @property
    def verdict(self) -> str:
        """ "faster", "slower", "within the noise", "one run" (no interval) or "no runs"."""
        if self.speed is None:
            return "no runs"
        if self.speed.low is None:
            return "one run"
        if self.speed.is_noise:
            return "within the noise"
        return "faster" if self.speed.value > 1 else "slower"

    def is_slower(self, tolerance: float) -> bool:
        """Whether it is slower by more than `tolerance` (a share), and that is not noise as far as is known."""
        return self.speed is not None and not self.speed.is_noise and self.speed.value < 1 - tolerance


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results, paired.

    Attributes:
        only_before, only_after: names of the tests that the other one lacks.
        differences: what differs and was allowed to, one sentence each.
    """

    pairs: tuple[Pair, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    differences: tuple[str, ...]


def compare(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    names: tuple[str, str] = ("before", "after"),
    force: Sequence[str] = (),
) -> Comparison:
    """Pair the rows of two results that `read_result` has read.

    Args:
        names: of the two, for messages.
        force: of MUST_MATCH, what may differ.

    Raises:
        UsageError: they differ in what must match, have no test in common, or `force` names nothing known.
    """
    for name in force:
        if name not in MUST_MATCH:
            raise UsageError(f"--force takes {', '.join(MUST_MATCH)}, got {quote(name)}")
    differences = _differences(before["environment"], after["environment"])
    refused = [name for name in differences if name in MUST_MATCH and name not in force]
    if refused:
        raise UsageError(
            f"{quote(names[0])} and {quote(names[1])} differ in {' and '.join(refused)}",
            why="; ".join(told for name in refused for told in differences[name]),
            fix=f"to compare them all the same: --force {','.join([*force, *refused])}",
        )
    plans = [result.get("plan") or {} for result in (before, after)]
    different = [name for name in plans[0] if plans[0][name] != plans[1].get(name)]
    differences["plan"] = [f"{n}: {_value(plans[0][n])} and {_value(plans[1].get(n))}" for n in different]
    rows_before = {row.key: row for row in read_rows(before)}
    rows_after = {row.key: row for row in read_rows(after)}
    both = [key for key in rows_before if key in rows_after]
    if not both:
        raise UsageError(
            f"{quote(names[0])} and {quote(names[1])} have no test in common",
            why=f"{_listed(rows_before.values())}; {_listed(rows_after.values())}",
            fix="run both with the same options",
        )
    return Comparison(
        tuple(_pair(rows_before[key], rows_after[key]) for key in both),
        tuple(_shown(row) for key, row in rows_before.items() if key not in rows_after),
        tuple(_shown(row) for key, row in rows_after.items() if key not in rows_before),
        tuple(told for each in differences.values() for told in each),
    )


def _pair(before: Row, after: Row) -> Pair:
    if before.unit != after.unit:
        raise UsageError(f"{_shown(before)} is in {quote(before.unit)} and in {quote(after.unit)}")
    samples = (*before.samples, *after.samples)
    if not before.samples or not after.samples or min(samples) <= 0:
        return Pair(before, after, None)
    ratio = ratio_of(before.samples, after.samples)
    return Pair(before, after, ratio if before.is_rate else ratio.inverse())


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[str]]:
    """What differs, under the name that --force takes, or under "told"."""
    found: dict[str, list[str]] = {}
    for name, fields in {**MUST_MATCH, "told": TOLD}.items():
        told = [
            f"{field}: {_value(before.get(field))} and {_value(after.get(field))}"
            for field in fields
            if not _same(field, before.get(field), after.get(field))
        ]
        if told:
            found[name] = told
    return found


def _same(field: str, before: Any, after: Any) -> bool:
    if field == "memory_bytes" and isinstance(before, int) and isinstance(after, int):
        return abs(before - after) <= MEMORY_SLACK * max(before, after)
    if field == "gpu" and isinstance(before, dict) and isinstance(after, dict):
        return before.get("name") == after.get("name")  # drivers may change
    return bool(before == after)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("name", value)
    return "none" if value is None else quote(str(value), 80)


def _shown(row: Row) -> str:
    return quote(row.test, 80) + ("" if row.batch is None else f" at batch {row.batch}")


def _listed(rows: Any) -> str:
    names = [_shown(row) for row in rows]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") if names else "no tests"
