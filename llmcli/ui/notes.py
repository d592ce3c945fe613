"""What a front end says besides the answers: notices, warnings and errors, on stderr.

Text given here is printed as it is: no markup, no wrapping but in tables, control characters escaped. Knows nothing of
what is said.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmcli.errors import LLMCliError, quote

if TYPE_CHECKING:
    from rich.console import Console

MAX_LINE = 10_000


class Notes:
    """Lines on a console, each in one style."""

    def __init__(self, console: "Console") -> None:
        self.console = console

    def say(self, text: str, style: str = "") -> None:
        """Print lines of plain text."""
        from rich.text import Text

        clean = "\n".join(quote(line, MAX_LINE) for line in text.split("\n"))
        self.console.print(Text(clean, style=style), soft_wrap=True)

    def table(self, rows: Sequence[tuple[str, str]], style: str = "") -> None:
        """Print rows of label and value, laid out for the window."""
        from llmcli.ui.status import table

        self.say(table(rows, self.width), style)

    def fit(self, line: str) -> str:
        """A line of numbers, broken between them where a person reads it in a narrow window."""
        from llmcli.ui.status import fold

        return fold(line, self.console.width) if self.console.is_terminal else line

    @contextmanager
    def working(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show on a terminal that something goes on; the function that it gives says what, from any thread."""
        if not self.console.is_terminal:
            yield lambda now: None
            return
        with self.console.status(text, spinner="dots") as status:
            yield lambda now: status.update(quote(now))

    @property
    def width(self) -> int | None:
        """Columns of the window; None where nobody looks at one."""
        return self.console.width if self.console.is_terminal else None

    def dim(self, text: str) -> None:
        """Print something that matters little."""
        self.say(text, "dim")

    def warn(self, text: str) -> None:
        """Print something that the user should notice."""
        self.say(text, "yellow")

    def error(self, error: LLMCliError) -> None:
        """Print an error that the session survives."""
        self.say(f"error: {error}", "red")
