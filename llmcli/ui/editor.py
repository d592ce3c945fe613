"""Opens a text in the user's editor. Knows no prompt; used by `/editor` and by the prompt's Ctrl-G."""

import os
import shlex
import subprocess
import tempfile
from contextlib import suppress

from llmcli.errors import UsageError, quote


def edit_text(text: str, editor: str) -> str:
    """What the editor leaves of `text`, without newlines at the end.

    Args:
        editor: a command line, as in $EDITOR; the file's name is added to it.

    Raises:
        UsageError: the editor can not be started, fails, or leaves something that is not UTF-8.
    """
    try:
        command = shlex.split(editor)
    except ValueError as error:
        raise UsageError(f"the editor {quote(editor)!r} is no command: {error}", fix="set EDITOR") from None
    descriptor, path = tempfile.mkstemp(prefix="llmcli-", suffix=".md")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        status = subprocess.run([*command, path], check=False).returncode
        if status != 0:
            raise UsageError(
                f"the editor {quote(editor)!r} ended with status {status}", fix="the text is as it was"
            )
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\n")
    except UnicodeDecodeError:
        raise UsageError("what the editor wrote is not UTF-8 text") from None
    except OSError as error:
        raise UsageError(
            f"the editor {quote(editor)!r} can not be used: {error.strerror}", fix="set EDITOR"
        ) from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)
