"""Tells which of the words of `llmcli chat [MODEL] [PROMPT]` is which, and joins a prompt with piped text.

Pure but for looking whether a folder exists.
"""

import re
from pathlib import Path

from llmcli.hub.models import BUNDLED_NAME

_PATH_LIKE = re.compile(r"[^\s/]*/\S*")


def split_model_and_prompt(first: str | None, second: str | None) -> tuple[str | None, str | None]:
    """Model and prompt from the two positional arguments.

    A single word is the model if it is a folder, the bundled model's name, or has the form of owner/name or
    of a path; else it is a prompt for the bundled model.
    """
    if first is None or second is not None or _is_model(first):
        return first, second
    return None, first


def join_prompt(prompt: str | None, piped: str | None) -> str | None:
    """The prompt, a blank line, the piped text; None when both are empty."""
    parts = [part for part in (prompt, (piped or "").rstrip("\r\n")) if part and part.strip()]
    return "\n\n".join(parts) or None


def _is_model(word: str) -> bool:
    if word == BUNDLED_NAME or _PATH_LIKE.fullmatch(word) is not None:
        return True
    try:
        return bool(word) and Path(word).is_dir()
    except (OSError, ValueError):  # too long for a path, or holds NUL
        return False
