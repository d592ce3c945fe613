"""An answer as it comes: what the views of a chat read, wherever the model runs.

The streams of an engine's thread, of a server and of a thinking budget have this form.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from llmcli.outputs import TokenEvent


class AnswerStream(Protocol):
    """An answer as it comes; the last event has a finish reason."""

    def __iter__(self) -> Iterator[TokenEvent]: ...

    @property
    def abort(self) -> Callable[[], None]:
        """Ask for the end, from any thread; the last event still comes."""
        ...
