"""The nearest known names to a mistyped one. Knows only strings; every part that takes a name may call it."""

import difflib
from collections.abc import Iterable

CUTOFF = 0.5  # of difflib's likeness: "modle" finds "model", "x" finds nothing


def nearest(name: str, known: Iterable[str], count: int = 1, cutoff: float = CUTOFF) -> list[str]:
    """At most `count` known names that are like `name`, the most alike first; upper and lower case are alike."""
    spelled: dict[str, str] = {}
    for candidate in known:
        spelled.setdefault(candidate.lower(), candidate)
    return [spelled[low] for low in difflib.get_close_matches(name.lower(), spelled, count, cutoff)]


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """`did you mean PREFIXname?`, or an empty string when nothing is near."""
    near = nearest(name, known)
    return f"did you mean {prefix}{near[0]}?" if near else ""
