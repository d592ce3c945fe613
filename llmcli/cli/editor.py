"""Which editor the user has. Called by `llmcli chat` and `llmcli config edit`."""

import os
import shutil

USUAL = ("editor", "nano", "vi")


def editor_command() -> str:
    """A command line: $VISUAL, else $EDITOR, else the first of the usual ones that is installed."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    return named or next(filter(shutil.which, USUAL), USUAL[-1])
