"""A model's reasoning on the screen: dim while it runs, then folded to one line; or, in a pipe, between tags.

Owns the clock of it. Knows nothing of how reasoning is told from the answer (`text/reasoning.py`). Used by
`AnswerView`, before the view of the answer itself.
"""

import time
from collections.abc import Callable
from typing import Literal, TextIO

from llmcli.text.sanitize import Sanitizer
from llmcli.ui.live_region import LiveRegion
from llmcli.ui.status import count
from llmcli.ui.wrap import wrap_lines

ThinkingMode = Literal["fold", "show", "hide"]
_DIM, _NORMAL = "\x1b[2m", "\x1b[0m"


class ThinkingView:
    """Shows the reasoning before an answer on a terminal.

    Args:
        mode: "fold" takes the text away when it ends, "show" leaves it, "hide" never shows it. One line tells in
            each case how long it took.
        styled: whether the terminal knows dim text.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        region: LiveRegion,
        mode: ThinkingMode = "fold",
        *,
        styled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._region = region
        self._mode = mode
        self._styled = styled
        self._clock = clock
        self._sanitizer = Sanitizer()
        self._text = ""
        self._num_tokens = 0
        self._cut = False
        self._started_at: float | None = None

    def push(self, text: str, num_tokens: int, *, cut: bool = False) -> None:
        """Show the next piece; `cut` says that the reasoning was ended there."""
        self._cut = self._cut or cut
        if self._started_at is None:
            self._started_at = self._clock()
        self._num_tokens += num_tokens
        self._text += self._sanitizer.push(text)
        if self._region.due:
            self._region.draw(
                "", f"thinking{_tokens(self._num_tokens)} …" if self._mode == "hide" else self._text
            )

    def close(self) -> None:
        """Leave what is to stay of it, if there was any."""
        if self._started_at is None:
            return
        if not self._text.strip():  # the model opened its reasoning and closed it at once
            self._region.close()
            self._started_at = None
            return
        lines = [thought_line(self._clock() - self._started_at, self._num_tokens, cut=self._cut)]
        if self._mode == "show":
            lines = [*wrap_lines(self._text.strip(), self._region.width), "", *lines]
        dim = (f"{_DIM}{line}{_NORMAL}" if line and self._styled else line for line in lines)
        self._region.draw("\n".join(dim) + "\n\n")
        self._region.close()
        self._started_at = None


class TaggedThinking:
    """Writes the reasoning into a pipe, between <think> and </think>, so that it can be told from the answer."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._sanitizer = Sanitizer()
        self._started = False

    def push(self, text: str, num_tokens: int, *, cut: bool = False) -> None:
        """Write the next piece."""
        opening = "" if self._started else "<think>\n"
        self._started = True
        self._out.write(opening + self._sanitizer.push(text))
        self._out.flush()

    def close(self) -> None:
        """End it, if there was any."""
        if self._started:
            self._out.write("\n</think>\n\n")
            self._out.flush()
        self._started = False


def thought_line(seconds: float, num_tokens: int, *, cut: bool = False) -> str:
    """`thought for 12 s, 431 tokens`, or `thought for 12 s (cut at 431 tokens)`."""
    if seconds < 10:
        time_taken = f"{seconds:.1f} s"
    elif seconds < 60:
        time_taken = f"{seconds:.0f} s"
    else:
        time_taken = f"{int(seconds) // 60} min {int(seconds) % 60} s"
    tokens = _tokens(num_tokens)
    return f"thought for {time_taken}" + (f" (cut at {tokens.removeprefix(', ')})" if cut else tokens)


def _tokens(number: int) -> str:
    """`, 431 tokens`; nothing where they are not counted, as with a server."""
    return f", {count(number)} token{'s' if number > 1 else ''}" if number else ""
