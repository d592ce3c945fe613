"""Copies text to the clipboard of the terminal, wherever that runs (OSC 52 of xterm's control sequences).

Knows only a stream and Markdown's code fences. Used by `/copy`.
"""

import base64
from typing import TextIO


def put_clipboard(screen: TextIO, text: str) -> None:
    """Ask the terminal to take `text`; whether it does, it does not tell."""
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    screen.write(f"\x1b]52;c;{encoded}\x07")
    screen.flush()


def last_code_block(answer: str) -> str:
    """The content of the last fenced or indented code block; empty when there is none."""
    from markdown_it import MarkdownIt

    blocks = [token.content for token in MarkdownIt().parse(answer) if token.type in ("fence", "code_block")]
    return blocks[-1].rstrip("\n") if blocks else ""
