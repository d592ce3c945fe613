"""The nearest known name to a mistyped one, as a sentence. Knows only strings."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """`did you mean PREFIXname?`, or an empty string when nothing is near."""
    near = difflib.get_close_matches(name, list(known), 1, cutoff=0.5)
    return f"did you mean {prefix}{near[0]}?" if near else ""
