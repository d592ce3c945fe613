"""What each kind of Markdown looks like on a terminal."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcli.ui.markdown.parser import MAX_NESTING
from llmcli.ui.markdown.render import BlockRenderer
from tests.ui.markdown_answers import answers, words


def lines(source: str, width: int = 40, number: int | None = None) -> list[str]:
    return [line.plain for line in BlockRenderer().lay_out(source, width, number)]


def styles(source: str) -> dict[str, str]:
    """Each styled part of a block, by its text."""
    [line] = BlockRenderer().lay_out(source, 80)
    return {line.plain[span.start : span.end]: str(span.style).strip() for span in line.spans}


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        pytest.param("# Title #", ["Title"], id="heading"),
        pytest.param("Title\n===", ["Title"], id="setext heading"),
        pytest.param("one\ntwo", ["one", "two"], id="lines of a paragraph stay lines"),
        pytest.param("**a** _b_ `c` ~~d~~", ["a b c d"], id="emphasis"),
        pytest.param("- a\n- b", ["• a", "• b"], id="list"),
        pytest.param("- a\n\n  b\n\n- c", ["• a", "", "  b", "", "• c"], id="loose list"),
        pytest.param("- a\n  - b\n    - c", ["• a", "  • b", "    • c"], id="nested list"),
        pytest.param("9. a\n9. b", ["9. a", "10. b"], id="ordered list"),
        pytest.param("- [ ] a\n- [x] b", ["• [ ] a", "• [x] b"], id="tasks"),
        pytest.param("-", ["•"], id="empty item"),
        pytest.param("> a\n> > b\n>\n> c", ["│ a", "│ │ b", "│", "│ c"], id="quotes"),
        pytest.param("> a\nlazy", ["│ a", "│ lazy"], id="lazy line"),
        pytest.param("***", ["─" * 40], id="rule"),
        pytest.param("[a](http://b.c)", ["a (http://b.c)"], id="link"),
        pytest.param("<http://b.c>", ["http://b.c"], id="address"),
        pytest.param("[http://b.c](http://evil.c)", ["http://b.c (http://evil.c)"], id="lying link"),
        pytest.param("[x](javascript:alert)", ["[x](javascript:alert)"], id="no address"),
        pytest.param("![a](b.png)", ["[image: a] (b.png)"], id="image"),
        pytest.param("<div>\n  *a*\n</div>", ["<div>", "a", "</div>"], id="HTML"),
        pytest.param(
            "- a\n  ```sh\n  b  c\n  ```", ["• a", "  ```sh", "  b  c", "  ```"], id="code in a list"
        ),
        pytest.param("    a\n\n      b", ["a", "", "  b"], id="indented code"),
        pytest.param("\\[\nx^2\n\\]", ["\\[", "x^2", "\\]"], id="formula"),
        pytest.param(
            "| a | bb |\n|--:|----|\n| 1 | 2 |\n| 33 |", [" a  bb", "──  ──", " 1  2", "33"], id="table"
        ),
        pytest.param("[a]: http://b.c", [], id="definition"),
        pytest.param("a&amp;b &copy;", ["a&b ©"], id="entities"),
        pytest.param("a\\*b\\", ["a*b\\"], id="escapes"),
    ],
)
def test_blocks_look_like_this(source: str, shown: list[str]) -> None:
    assert lines(source) == shown


def test_text_is_wrapped_below_itself() -> None:
    assert lines("1. one two three four\n   - five six seven", 14) == [
        "1. one two",
        "   three four",
        "   • five six",
        "     seven",
    ]
    assert lines("> one two three", 10) == ["│ one two", "│ three"]


def test_styles_tell_what_is_what() -> None:
    assert styles("**a** _b_ `c` ~~d~~") == {"a": "bold", "b": "italic", "c": "bold cyan", "d": "strike"}
    assert styles("**a _b_**") == {"a ": "bold", "b": "bold italic"}
    assert styles("# a") == {"a": "bold underline"}
    assert styles("[a](http://b.c)") == {"a": "underline", " (http://b.c)": "dim"}


def test_the_first_number_can_come_from_an_earlier_block() -> None:
    assert lines("1. a\n   1. b", number=7) == ["7. a", "   1. b"]


def test_a_link_may_be_defined_in_an_earlier_block() -> None:
    renderer = BlockRenderer()
    renderer.render("[a]: http://b.c", 40)
    assert [line.plain for line in renderer.render("see [a]", 40)] == ["see a (http://b.c)"]


def test_wide_columns_of_a_table_give_way_and_wrap() -> None:
    table = "| a | b |\n|---|---|\n| one two three | four five six seven |"
    assert lines(table, 22) == [
        "a           b",
        "──────────  ──────────",
        "one two     four five",
        "three       six seven",
    ]


def test_a_table_with_too_many_columns_is_shown_field_by_field() -> None:
    table = "| a | b | c |\n|---|---|---|\n| 11111111 | 22222222 | 33333333 |\n| x | y | z |"
    assert lines(table, 20) == ["a: 11111111", "b: 22222222", "c: 33333333", "", "a: x", "b: y", "c: z"]


def test_a_row_with_more_cells_than_the_header_is_not_cut() -> None:
    table = "| a |\n|---|\n| 1 | 2 |"
    assert lines(table) == table.split("\n")


def test_characters_that_entities_spell_are_made_harmless() -> None:
    assert lines("a&#13;b&#x202e;c&#27;d") == ["abc\ufffdd"]


def test_what_is_nested_too_deeply_is_shown_as_it_is() -> None:
    source = "> " * MAX_NESTING + "deep"
    assert [line.plain for line in BlockRenderer().render(source, 40)] == [source]


@given(answers(4), st.integers(20, 200))
@settings(deadline=None)
def test_no_word_is_lost_at_any_width(source: str, width: int) -> None:
    assert words("\n".join(lines(source, width))) == words(source)
