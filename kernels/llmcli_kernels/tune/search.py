"""Search for the fastest config: one setting at a time, over again until nothing helps.

Owns the order of what is tried. Does not know what a config means or how it is tried.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
Space = Mapping[str, Sequence[int | str]]
NOISE = 0.02  # a config that is faster by less than this share is not faster


@dataclass(frozen=True)
class Trial:
    """One config that was tried.

    Attributes:
        seconds: of one call, or None where the config is of no use.
        reason: why it is of no use.
    """

    config: Config
    seconds: float | None
    reason: str = ""

    def beats(self, other: "Trial") -> bool:
        if self.seconds is None or other.seconds is None:
            return self.seconds is not None and other.seconds is None
        return self.seconds < other.seconds * (1 - NOISE)


def search(start: Config, space: Space, attempt: Callable[[Config], Trial]) -> Iterator[Trial]:
    """Every trial as it is made, the first with `start`; no config is tried twice.

    Args:
        space: values to try for each setting; settings that it does not name stay as they are.
    """
    best = attempt(start)
    yield best
    tried = [dict(start)]
    improved = True
    while improved:
        improved = False
        for name, values in space.items():
            for value in values:
                config = {**best.config, name: value}
                if config in tried:
                    continue
                tried.append(config)
                trial = attempt(config)
                yield trial
                if trial.beats(best):
                    best, improved = trial, True


def best_of(trials: Sequence[Trial]) -> Trial:
    """The one that `search` ended with."""
    best = trials[0]
    for trial in trials[1:]:
        best = trial if trial.beats(best) else best
    return best
