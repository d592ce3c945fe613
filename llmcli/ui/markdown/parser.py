"""The Markdown that models write: CommonMark with tables and strikethrough, HTML as text, formulas left as they are.

Owns the two rules that keep LaTeX from being read as Markdown (where a lone `=` would make a heading, and `\\(` lose
its backslash). Knows nothing of streams or terminals. Called by `markdown/blocks.py` and `markdown/render.py`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline

MAX_NESTING = 100
"""Levels of blocks; each list takes two. What is nested deeper than this is not parsed but lost."""

MATH_CLOSED = "closed"
_CLOSERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)"}


def markdown_parser() -> "MarkdownIt":
    """A parser for whole blocks; formulas become `math` and `math_block` tokens, whose content is the source."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": MAX_NESTING})
    parser.enable(["table", "strikethrough"])
    parser.inline.ruler.before("escape", "math", _math)
    interrupts = ["paragraph", "reference", "blockquote", "list"]
    parser.block.ruler.before("fence", "math_block", _math_block, {"alt": interrupts})
    return parser


def block_parser() -> "MarkdownIt":
    """The same, but inline content is not looked into."""
    parser = markdown_parser()
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


def _math(state: "StateInline", silent: bool) -> bool:
    """`$x$`, `$$x$$`, `\\(x\\)` and `\\[x\\]` within a line or paragraph."""
    end = _math_end(state.src, state.pos, state.posMax)
    if end is None:
        return False
    if not silent:
        token = state.push("math", "", 0)
        token.content = state.src[state.pos : end]
    state.pos = end
    return True


def _math_end(source: str, start: int, limit: int) -> int | None:
    """Where the formula that begins at `start` ends; None if none does."""
    closer = _CLOSERS.get(source[start : start + 2])
    if closer is not None:
        found = source.find(closer, start + 2, limit)
        if found >= 0:
            return found + len(closer)
        return None if closer == "$$" else start + 2
    if source[start] != "$":
        return None
    return _single_dollar_end(source, start, limit)


def _single_dollar_end(source: str, start: int, limit: int) -> int | None:
    """Pandoc's rule, by which `$5 and $10` is no formula: no space inside next to a dollar, no digit after it."""
    if start + 1 >= limit or source[start + 1].isspace():
        return None
    line_end = source.find("\n", start, limit)
    found = source.find("$", start + 1, limit if line_end < 0 else line_end)
    if found < 0 or source[found - 1].isspace() or source[found + 1 : found + 2].isdigit():
        return None
    return found + 1


def _math_block(state: "StateBlock", start_line: int, end_line: int, silent: bool) -> bool:
    """A formula of several lines: from a line that begins with `$$` or `\\[` to one that holds the closer.

    A blank line before the closer, which TeX does not allow, means that it is none.
    """
    if state.is_code_block(start_line):
        return False
    first = state.src[state.bMarks[start_line] + state.tShift[start_line] : state.eMarks[start_line]]
    closer = _CLOSERS.get(first[:2])
    if closer is None or first[:2] == "\\(" or closer in first[2:]:
        return False
    line, closed = start_line, False
    while not closed:
        line += 1
        if line >= end_line or state.sCount[line] < state.blkIndent:
            break
        if state.isEmpty(line):
            return False
        closed = closer in state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]
    if silent:
        return True
    state.line = line + closed
    token = state.push("math_block", "", 0)
    token.content = state.getLines(start_line, state.line, state.blkIndent, False)
    token.info = MATH_CLOSED if closed else ""
    token.map = [start_line, state.line]
    return True
