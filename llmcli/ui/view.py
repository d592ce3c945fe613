"""How an answer reaches the screen or a pipe: plain text, as it comes, safe to print; its reasoning set apart.

Knows nothing of engines and conversations. Used by the chat session and the single answer; `markdown/view.py` is the
other view of an answer's text.
"""

from typing import Protocol, TextIO

from llmcli.text.sanitize import Sanitizer
from llmcli.ui.wrap import WordWrap


class View(Protocol):
    """Where an answer is shown."""

    def think(self, text: str, num_tokens: int, *, cut: bool = False) -> None:
        """Take the next piece of the reasoning, which comes before the answer; `cut` says that it was ended there."""
        ...

    def push(self, text: str) -> None:
        """Show the next piece of the answer."""
        ...

    def close(self) -> None:
        """End it, whatever came."""
        ...


class TextView(Protocol):
    """A view of the answer's text alone."""

    def push(self, text: str) -> None: ...
    def close(self) -> None: ...


class Thinking(Protocol):
    """A view of the reasoning alone."""

    def push(self, text: str, num_tokens: int, *, cut: bool = False) -> None: ...
    def close(self) -> None: ...


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

    def think(self, text: str, num_tokens: int, *, cut: bool = False) -> None:
        """Reasoning is no part of the answer."""

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


class AnswerView:
    """Shows an answer's reasoning in one view, if there is one for it, and then its text in another."""

    def __init__(self, text: TextView, thinking: Thinking | None = None) -> None:
        self._text = text
        self._thinking = thinking

    def think(self, text: str, num_tokens: int, *, cut: bool = False) -> None:
        """Show the next piece of the reasoning."""
        if self._thinking is not None:
            self._thinking.push(text, num_tokens, cut=cut)

    def push(self, text: str) -> None:
        """Show the next piece of the answer."""
        if text:
            self._end_thinking()
            self._text.push(text)

    def close(self) -> None:
        """End both."""
        self._end_thinking()
        self._text.close()

    def _end_thinking(self) -> None:
        if self._thinking is not None:
            self._thinking.close()
