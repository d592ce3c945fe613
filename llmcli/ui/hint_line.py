"""The line below the prompt: how things stand, and keys worth knowing, as far as the window is wide.

Pure text. Called by `prompt_reader.py`.
"""

from collections.abc import Sequence

from llmcli.ui.wrap import break_offsets, text_cells

HINTS = ("/help", "Alt-Enter new line", "Ctrl-G editor", "Ctrl-D leaves")
"""The most useful first: where there is no room, the last ones go."""

_BETWEEN, _CUT = " · ", "…"


def hint_line(status: str, width: int, hints: Sequence[str] = HINTS) -> str:
    """The status, cut if it must be, and as many hints as fit behind it in `width` cells."""
    if text_cells(status) > width:
        words = status.replace(" ", "\u00a0")  # cut anywhere, not between words
        end = [*break_offsets(words, max(1, width - 1)), len(status)][0]
        return status[:end].rstrip() + _CUT
    line = status
    for hint in hints:
        longer = line + _BETWEEN + hint if line else hint
        if text_cells(longer) > width:
            break
        line = longer
    return line
