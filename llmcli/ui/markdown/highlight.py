"""Colours for code, line by line as it comes.

Owns how much of the code above a line is read again to colour it. Knows nothing of fences. Called by the Markdown view
for open code and by `markdown/render.py` for code inside of lists and quotes.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pygments.lexer import Lexer
    from rich.text import Text

MAX_CONTEXT = 80
"""Lines that are read to colour the next; so many at most, since each line of a long listing reads them again."""

MAX_LINE = 1000
"""A line with more characters stays without colour: lexers are not made for those."""

_THEME = "ansi_dark"  # the terminal's own sixteen colours


class Highlighter:
    """Colours the lines of one listing.

    Args:
        info: what stands behind the fence; its first word names the language. Unknown ones stay without colour.
    """

    def __init__(self, info: str) -> None:
        self._lexer = _lexer(info)
        self._context: list[str] = []

    def line(self, text: str) -> "Text":
        """A line, with its characters as they are. Lines that come later have no part in its colours."""
        from rich.syntax import Syntax
        from rich.text import Text

        if self._lexer is None or len(text) > MAX_LINE:
            return Text(text)
        self._context.append(text)
        theme = Syntax.get_theme(_THEME)
        whole = Text()
        for kind, value in self._lexer.get_tokens("\n".join(self._context)):
            whole.append(value, theme.get_style_for_token(kind))
        if len(self._context) > MAX_CONTEXT:
            del self._context[: MAX_CONTEXT // 2]
        last = whole.split("\n", allow_blank=True)[-1]
        return last if last.plain == text else Text(text)


def _lexer(info: str) -> "Lexer | None":
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    name = info.strip().partition(" ")[0].strip("{}.").lower()
    if not name:
        return None
    try:
        return get_lexer_by_name(name, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None
