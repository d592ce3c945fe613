"""Tunes one case: tries configs, throws out those that are wrong, and times the others.

Knows how a candidate is judged; what a case is, `cases.py` says, and how time is taken, the caller.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli_kernels.tune.search import Config, Space, Trial, best_of, search
from llmcli_kernels.tuning import TuningRow, TuningTable

WRONG = "wrong result"

Timer = Callable[[Sequence[Callable[[], object]]], float]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case with its data on the device.

    Attributes:
        expected: what the operation is to return, from plain torch in float32.
        bound: the largest relative error that rounding explains.
        output: the operation's result when it launches as a table says.
        calls: the same operation to be timed, on different copies of the data; compiled by `output`.
    """

    expected: Tensor
    bound: float
    output: Callable[[TuningTable], Tensor]
    calls: Callable[[TuningTable], Sequence[Callable[[], object]]]


@dataclass(frozen=True, eq=False)
class Case:
    """One operation with the sizes of one shape.

    Attributes:
        operation: its name in the tuning table.
        title: for people.
        sizes: what the operation asks the table with; the row that is found has them as bounds.
        space: values worth a try for each setting.
        prepare: puts the data on the device.
    """

    operation: str
    title: str
    sizes: Mapping[str, int]
    space: Space
    prepare: Callable[[], Prepared]


@dataclass(frozen=True, eq=False)
class Tuned:
    """A case that was tuned: its present config, the best one, and all that was tried."""

    case: Case
    before: Trial
    after: Trial
    trials: tuple[Trial, ...]

    @property
    def row(self) -> TuningRow | None:
        """What belongs into the user's table; None where no config works."""
        if self.after.seconds is None:
            return None
        return TuningRow(dict(self.case.sizes), dict(self.after.config), self.case.title)


def tune(case: Case, table: TuningTable, timer: Timer, on_trial: Callable[[Trial], None]) -> Tuned:
    """Search from the table's config.

    Args:
        timer: seconds of one call, given calls on different copies of the data.
        on_trial: told of each trial.

    Raises:
        RuntimeError: the GPU can not go on; everything else that a config does wrong only counts against it.
    """
    prepared = case.prepare()
    trials = []
    start = table.pick(case.operation, **case.sizes)
    for trial in search(start, case.space, lambda config: attempt(case, prepared, table, config, timer)):
        trials.append(trial)
        on_trial(trial)
    before, after = trials[0], best_of(trials)
    if before.seconds is not None and after is not before:
        before, after = (attempt(case, prepared, table, trial.config, timer) for trial in (before, after))
        after = after if after.beats(before) else before  # a lucky measurement is not repeated
    return Tuned(case, before, after, tuple(trials))


def attempt(case: Case, prepared: Prepared, table: TuningTable, config: Config, timer: Timer) -> Trial:
    """Check a config's result, then time it."""
    candidate = with_config(table, case.operation, config)
    try:
        error = relative_error(prepared.output(candidate), prepared.expected)
        if not error <= prepared.bound:
            return Trial(config, None, f"{WRONG}: relative error {error:.1e}, bound {prepared.bound:.1e}")
        return Trial(config, timer(prepared.calls(candidate)))
    except Exception as problem:  # compilers, launches and host functions refuse in ways of their own
        check_device()
        return Trial(config, None, _first_line(problem))


def with_config(table: TuningTable, operation: str, config: Config) -> TuningTable:
    """`table` with one config for all sizes of an operation."""
    row = TuningRow({}, dict(config), "the config that is tried")
    return TuningTable("a table to try", {**table.rows, operation: (row,)})


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value; NaN where there is one."""
    wanted = expected.float()
    return ((actual.float() - wanted).abs().max() / wanted.abs().max()).item()


def check_device() -> None:
    """Raise a RuntimeError when a kernel has crashed, after which the GPU refuses this process everything."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _first_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {str(problem).strip().partition(chr(10))[0][:200]}"
