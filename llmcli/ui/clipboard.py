"""The clipboard: text is copied to that of the terminal, wherever that runs (OSC 52 of xterm's control sequences), and
read with a program of this machine.

Knows only a stream, a command line and Markdown's code fences. Used by `/copy` and `/paste`.
"""

import base64
import subprocess
from collections.abc import Sequence
from typing import TextIO

from llmcli.errors import RequestError, quote

READ_S = 5.0
MAX_BYTES = 16 << 20


def put_clipboard(screen: TextIO, text: str) -> None:
    """Ask the terminal to take `text`; whether it does, it does not tell."""
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    screen.write(f"\x1b]52;c;{encoded}\x07")
    screen.flush()


def read_clipboard(command: Sequence[str]) -> str:
    """The text that `command` prints, without newlines at its end.

    Raises:
        RequestError: it fails, takes too long, or there is no text.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=READ_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        late = isinstance(error, subprocess.TimeoutExpired)
        reason = f"no answer within {READ_S:.0f} s" if late else quote(str(error))
        raise RequestError(f"{command[0]} does not give the clipboard: {reason}") from None
    if done.returncode:
        said = quote(done.stderr.decode("utf-8", "replace").strip(), 200)
        raise RequestError(f"{command[0]} does not give the clipboard", why=said)
    if len(done.stdout) > MAX_BYTES:
        raise RequestError(f"the clipboard has {len(done.stdout):,} bytes, a text has at most {MAX_BYTES:,}")
    try:
        text = done.stdout.decode("utf-8").replace("\r\n", "\n").rstrip("\n")
    except UnicodeDecodeError:
        raise RequestError("the clipboard holds something that is no text") from None
    if not text.strip() or "\x00" in text:
        raise RequestError("the clipboard holds no text")
    return text


def last_code_block(answer: str) -> str:
    """The content of the last fenced or indented code block; empty when there is none."""
    from markdown_it import MarkdownIt

    blocks = [token.content for token in MarkdownIt().parse(answer) if token.type in ("fence", "code_block")]
    return blocks[-1].rstrip("\n") if blocks else ""
