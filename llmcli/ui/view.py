"""How an answer reaches the screen or a pipe: plain text, as it comes, safe to print; wrapped on a terminal.

Knows nothing of engines and conversations. Used by the chat session and the single answer; another view
(rendered Markdown, say) needs the same two methods.
"""

from typing import TextIO

from llmcli.text.sanitize import Sanitizer
from llmcli.ui.wrap import WordWrap


class PlainView:
    """Prints one answer: no control sequences, flushed at every push, ending with exactly one newline.

    Args:
        wrap: breaks lines between words; None leaves the text as it is.
    """

    def __init__(self, out: TextIO, wrap: WordWrap | None = None) -> None:
        self._out = out
        self._wrap = wrap
        self._sanitizer = Sanitizer()
        self._held = ""  # newlines at the end of what came so far: printed only when more text follows

    def push(self, text: str) -> None:
        """Print the next piece of the answer."""
        clean = self._held + self._sanitizer.push(text)
        shown = clean.rstrip("\n")
        self._held = clean[len(shown) :]
        self._write(shown if self._wrap is None else self._wrap.push(shown))

    def close(self) -> None:
        """End the answer's last line."""
        self._held = ""
        self._write("\n" if self._wrap is None else self._wrap.close() + "\n")

    def _write(self, text: str) -> None:
        if not text:
            return
        self._out.write(text)
        self._out.flush()
