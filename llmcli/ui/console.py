"""The consoles that people read: one on stdout for results, one on stderr for everything else.

Colour only on a terminal: NO_COLOR, FORCE_COLOR, TERM=dumb and COLUMNS are honoured by Rich, and nothing that
comes from a model or a file is ever read as markup. Rich is imported when a console is made. Called by `cli/`
and `ui/`.
"""

import sys
from functools import partial
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


UNLIMITED = 10_000


def stdout_console() -> "Console":
    """A console for results; a file or a pipe has no width, so that nothing is cut there."""
    return _console(sys.stdout, None if sys.stdout.isatty() else UNLIMITED)


def stderr_console() -> "Console":
    """A console for progress, notices and errors."""
    return _console(sys.stderr)


def _console(file: IO[str], width: int | None = None) -> "Console":
    from rich.console import Console

    class PipeConsole(Console):
        """Tells its caller that the reader is gone, where Rich would exit the process itself."""

        def on_broken_pipe(self) -> None:
            self.quiet = True
            raise BrokenPipeError

    make = partial(PipeConsole, file=file, width=width, markup=False, emoji=False, highlight=False)
    console = make()
    if console.is_terminal and not file.isatty():  # FORCE_COLOR: a pipe has colours then, and still no cursor
        colours: Any = console.color_system
        return make(force_terminal=False, color_system=colours)
    return console
