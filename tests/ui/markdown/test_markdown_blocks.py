"""Blocks close when nothing can change them, and cutting an answer into blocks does not change what they are."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcli.ui.markdown.blocks import MAX_OPEN_LINES, BlockSplitter, Piece, PieceKind
from llmcli.ui.markdown.parser import block_parser
from tests.ui.markdown_answers import answers, chunked


def closed(text: str) -> list[str]:
    """The blocks that are closed when `text` has come, code lines included."""
    return [piece.text for piece in BlockSplitter().push(text)]


def pieces_of(*chunks: str) -> list[Piece]:
    splitter = BlockSplitter()
    return [piece for chunk in chunks for piece in splitter.push(chunk)] + splitter.close()


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        pytest.param("# Title\n", ["# Title"], id="a heading closes with its line"),
        pytest.param("---\n", ["---"], id="so does a rule"),
        pytest.param("text\n", [], id="a paragraph may become a heading or go on"),
        pytest.param("text\n===\n", ["text\n==="], id="setext heading"),
        pytest.param("text\n\n", ["text"], id="a blank line ends a paragraph"),
        pytest.param("text\n# Title\n", ["text", "# Title"], id="so does a heading"),
        pytest.param("> quote\nlazy\n", [], id="a lazy line may follow a quote"),
        pytest.param("> quote\nlazy\n\n", ["> quote\nlazy"], id="a blank line ends a quote"),
        pytest.param("- one\n", [], id="an item is open"),
        pytest.param("- one\n\n", [], id="a blank line does not end an item"),
        pytest.param("- one\n\n  more\n- two\n", ["- one\n\n  more"], id="the next item does"),
        pytest.param("- one\n  - deep\n- two\nlazy\n", ["- one\n  - deep"], id="an inner item does not"),
        pytest.param("- one\n* other\n", ["- one"], id="another list does"),
        pytest.param("- one\ntext\n", [], id="a lazy line goes on with an item"),
        pytest.param("- one\n\ntext\n", ["- one"], id="text behind a blank line does not"),
        pytest.param("| a |\n|---|\n| b |\n", [], id="a table may have more rows"),
        pytest.param("| a |\n|---|\n| b |\n\n", ["| a |\n|---|\n| b |"], id="a blank line ends a table"),
        pytest.param("    code\n\n", [], id="indented code may go on behind a blank line"),
        pytest.param("    code\n\ntext\n", ["    code"], id="text ends indented code"),
        pytest.param("text\n```\ncode\n", ["text", "```", "code"], id="lines of code close by themselves"),
        pytest.param("```\n# no heading\n~~~\n", ["```", "# no heading", "~~~"], id="code is only code"),
        pytest.param("````\n```\n````\ntext\n\n", ["````", "```", "````", "text"], id="longer fences"),
        pytest.param("- a\n  ```\n  x\n\n  y\n", [], id="code in an item belongs to it"),
        pytest.param("[r]: http://x.y\n", [], id="a definition may have a title"),
        pytest.param("[r]: http://x.y\ntext\n\n", ["[r]: http://x.y", "text"], id="text ends it"),
        pytest.param("\\[\na\n=\nb\n", [], id="a formula is open until it is closed"),
        pytest.param("\\[\na\n=\nb\n\\]\n", ["\\[\na\n=\nb\n\\]"], id="and then no heading"),
        pytest.param("<div>\n*a*\n", [], id="HTML is text"),
        pytest.param("text `", [], id="a line that has not ended is not looked at"),
    ],
)
def test_a_block_is_closed_when_no_line_can_change_it(text: str, blocks: list[str]) -> None:
    assert closed(text) == blocks


@given(answers(), st.integers(0, 2**32))
@settings(deadline=None)
def test_the_pieces_do_not_depend_on_how_the_text_is_cut(text: str, seed: int) -> None:
    assert pieces_of(*chunked(text, seed)) == pieces_of(text)


def kinds(text: str) -> list[str]:
    """The blocks of a text at the top level and, one level deeper, the items of its lists."""
    found = []
    for token in block_parser().parse(text, {}):
        is_list = token.type in ("bullet_list_open", "ordered_list_open")
        if token.nesting >= 0 and ((token.level == 0 and not is_list) or token.type == "list_item_open"):
            found += [token.type] if token.level <= 1 else []
    return found


@given(answers())
@settings(deadline=None)
def test_block_by_block_the_answer_is_the_same_as_read_at_once(text: str) -> None:
    separate: list[str] = []
    for kind, group in itertools.groupby(pieces_of(text), lambda piece: piece.kind is PieceKind.BLOCK):
        for piece in group:
            if kind:
                separate += kinds(piece.text)
            elif piece.kind is PieceKind.FENCE_OPEN:
                separate.append("fence")
    assert separate == kinds(text)


@given(answers())
@settings(deadline=None)
def test_nothing_but_blank_lines_is_lost(text: str) -> None:
    lines = [line.strip() for piece in pieces_of(text) for line in piece.text.split("\n")]
    assert [line for line in lines if line] == [line.strip() for line in text.split("\n") if line.strip()]


def test_items_of_an_ordered_list_are_numbered_through_whatever_their_markers_say() -> None:
    pieces = pieces_of("3. a\n1. b\n1. c\n\ntext\n\n1. d\n")
    assert [(piece.text, piece.number) for piece in pieces] == [
        ("3. a", None),
        ("1. b", 4),
        ("1. c", 5),
        ("text", None),
        ("1. d", None),
    ]


def test_a_piece_tells_whether_blank_lines_stand_before_it() -> None:
    assert [piece.gap for piece in pieces_of("a\n\n- b\n- c\n\n- d\n```\nx\n```\n\ne\n")] == [
        False, True, False, True, False, False, False, True,
    ]  # fmt: skip


def test_what_is_open_is_told_with_its_blank_line() -> None:
    splitter = BlockSplitter()
    splitter.push("a\n\nb\nc")
    assert splitter.open_text == "\nb\nc"
    splitter.push("\n```\nx")
    assert splitter.open_text == "x"


def test_an_endless_block_is_cut() -> None:
    splitter = BlockSplitter()
    rows = "| a |\n|---|\n" + "| b |\n" * MAX_OPEN_LINES
    [piece] = splitter.push(rows)
    assert piece.text.count("\n") == MAX_OPEN_LINES
    assert splitter.open_text.count("\n") == 1
