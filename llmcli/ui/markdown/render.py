"""Closed blocks of Markdown as styled lines, wrapped to a width: no padding, no boxes, nothing left out.

Owns what Markdown looks like. Knows nothing of streams and terminals; a block is laid out once, by the width of that
moment. Called by the Markdown view.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmcli.text.sanitize import sanitize
from llmcli.ui.markdown.parser import MAX_NESTING, markdown_parser
from llmcli.ui.markdown.table import Table, table_lines
from llmcli.ui.wrap import MIN_WIDTH, wrap_text

if TYPE_CHECKING:
    from markdown_it.tree import SyntaxTreeNode
    from rich.text import Text

_STYLES = {"strong": "bold", "em": "italic", "s": "strike", "link": "underline", "math": "", "text": ""}
_HEADINGS = {"h1": "bold underline", "h2": "bold", "h3": "bold italic"}
_CODE = "bold cyan"
_DIM = "dim"
_CELL_END = re.compile(r"(?<!\\)\|")


class BlockRenderer:
    """Renders the blocks of one answer; links may be defined in an earlier block."""

    def __init__(self) -> None:
        self._parser = markdown_parser()
        self._references: dict[str, object] = {}

    def render(self, source: str, width: int, number: int | None = None) -> "list[Text]":
        """The lines of a block; none for a definition of links.

        Args:
            source: Markdown without control characters.
            width: cells that a line may take. Lines of code may be longer.
            number: of the first item, if the block is one of an ordered list.
        """
        from rich.text import Text

        try:
            return self.lay_out(source, width, number)
        except Exception:  # a stranger's text in a parser of strangers: whatever fails, the answer is shown
            return [Text(line) for line in source.split("\n")]

    def lay_out(self, source: str, width: int, number: int | None = None) -> "list[Text]":
        """As `render`, without its net.

        Raises:
            RecursionError: blocks are nested too deeply.
        """
        from markdown_it.tree import SyntaxTreeNode

        tokens = self._parser.parse(source, self._references)
        if any(token.level >= MAX_NESTING - 1 for token in tokens):
            raise RecursionError("the parser leaves out what is nested so deeply")
        return _Layout(source.split("\n"), number).blocks(SyntaxTreeNode(tokens).children, width)


class _Layout:
    """Lays out the tree of one block.

    Args:
        source: its lines, which tell where blank ones were.
        number: of the first item, if the block is one of an ordered list.
    """

    def __init__(self, source: Sequence[str], number: int | None) -> None:
        self._source = source
        self._number = number

    def blocks(self, nodes: "Sequence[SyntaxTreeNode]", width: int) -> "list[Text]":
        """One below the other, with a blank line where the source has any."""
        from rich.text import Text

        width = max(MIN_WIDTH, width)
        lines: list[Text] = []
        for node in nodes:
            below = self._block(node, width)
            if lines and below and self._has_gap(node):
                lines.append(Text())
            lines += below
        return lines

    def _has_gap(self, node: "SyntaxTreeNode") -> bool:
        return node.map is not None and not self._source[node.map[0] - 1].strip(" \t>")

    def _block(self, node: "SyntaxTreeNode", width: int) -> "list[Text]":
        from rich.text import Text

        if node.type in ("bullet_list", "ordered_list"):
            return self._list(node, width)
        if node.type == "blockquote":
            return _prefixed(self.blocks(node.children, width - 2), Text("│ ", _DIM), Text("│ ", _DIM))
        if node.type == "table":
            return self._table(node, width)
        if node.type == "hr":
            return [Text.assemble(("─" * width, _DIM))]
        if node.type in ("fence", "code_block"):
            return _code_lines(node)
        if node.type == "math_block":
            return [Text(line) for line in node.content.split("\n")]
        text = Text()
        for child in node.children:
            text.append_text(inline_text(child))
        if node.type == "heading":
            text.stylize(_HEADINGS.get(node.tag, "italic"))
        return wrap_text(text, width)

    def _table(self, node: "SyntaxTreeNode", width: int) -> "list[Text]":
        """Columns; or the source, where the parser would leave out cells that have no header."""
        rows = [row for part in node.children for row in part.children]
        header, *body = [
            [inline_text(content) for cell in row.children for content in cell.children] for row in rows
        ]
        if any(self._num_cells(row) > len(header) for row in rows):
            return wrap_text(self._lines(node), width)
        aligned = [str(cell.attrs.get("style", "")).removeprefix("text-align:") for cell in rows[0].children]
        return table_lines(Table(header, body, aligned), width)

    def _num_cells(self, row: "SyntaxTreeNode") -> int:
        line = self._lines(row).plain.strip(" \t>").removeprefix("|").removesuffix("|")
        return len(_CELL_END.split(line))

    def _lines(self, node: "SyntaxTreeNode") -> "Text":
        """The source of a block."""
        from rich.text import Text

        start, end = node.map or (0, 0)
        return Text("\n".join(self._source[start:end]).rstrip())

    def _list(self, node: "SyntaxTreeNode", width: int) -> "list[Text]":
        from rich.text import Text

        start, self._number = self._number, None
        number = int(node.attrs.get("start", 1)) if start is None else start
        lines: list[Text] = []
        for item in node.children:
            marker = "• " if node.type == "bullet_list" else f"{number}. "
            inner = self.blocks(item.children, width - len(marker)) or [Text()]
            if lines and self._has_gap(item):
                lines.append(Text())
            lines += _prefixed(inner, Text.assemble((marker, "bold")), Text(" " * len(marker)))
            number += 1
        return lines


def inline_text(node: "SyntaxTreeNode", style: str = "") -> "Text":
    """The text of an inline node and of what is in it.

    What the source spells as an entity (`&#13;`) is a character here, so it is made harmless again.
    """
    from rich.text import Text

    if node.type in ("softbreak", "hardbreak"):
        return Text("\n")
    if node.type == "code_inline":
        return Text.assemble((sanitize(node.content), f"{style} {_CODE}"))
    if not node.children and node.type != "image":
        return Text.assemble((sanitize(node.content), style)) if node.token is not None else Text()
    style = f"{style} {_STYLES.get(node.type, '')}".strip()
    text = Text()
    for child in node.children:
        text.append_text(inline_text(child, style))
    if node.type == "link":
        _add_address(text, str(node.attrs.get("href", "")))
    elif node.type == "image":
        text = Text.assemble("[image: ", text, "]") if text else Text("[image]")
        _add_address(text, str(node.attrs.get("src", "")))
    return text


def _add_address(text: "Text", address: str) -> None:
    """Show where a link leads, unless its text says so.

    As text, not as a hidden target (OSC 8): what a model links to is to be seen before it is followed.
    """
    address = sanitize(address)
    if address and text.plain not in (address, address.removeprefix("mailto:")):
        text.append(f" ({address})", _DIM)


def _code_lines(node: "SyntaxTreeNode") -> "list[Text]":
    """Code inside of a list or quote, and indented code: its lines as they are."""
    from rich.text import Text

    from llmcli.ui.markdown.highlight import Highlighter

    lines = node.content.removesuffix("\n").split("\n")
    if node.type == "code_block":
        return [Text.assemble((line, _CODE)) for line in lines]
    highlighter = Highlighter(node.info)
    fence = node.markup
    return [
        Text.assemble((f"{fence}{sanitize(node.info)}", _DIM)),
        *map(highlighter.line, lines if node.content else []),
        Text.assemble((fence, _DIM)),
    ]


def _prefixed(lines: "list[Text]", first: "Text", other: "Text") -> "list[Text]":
    from rich.text import Text

    joined = [Text.assemble(other if index else first, line) for index, line in enumerate(lines)]
    for line in joined:
        line.rstrip()
    return joined
