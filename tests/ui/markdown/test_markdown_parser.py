"""Formulas stay as they are, and what only looks like one is Markdown."""

import pytest

from llmcli.ui.markdown.parser import markdown_parser


def inline(text: str) -> list[tuple[str, str]]:
    [token] = [token for token in markdown_parser().parse(text) if token.type == "inline"]
    return [(child.type, child.content) for child in token.children or [] if child.content]


@pytest.mark.parametrize(
    "formula", ["$x_1 * y_1$", "$$a_b$$", "\\(a_1 * b_1\\)", "\\[ x^2 \\_ \\]", "$\\{x\\}$", "\\(a\nb\\)"]
)
def test_a_formula_is_left_as_it_is(formula: str) -> None:
    assert ("math", formula) in inline(f"so {formula} is")


@pytest.mark.parametrize("text", ["$5 and $10", "a $ b $", "$x\ny$", "US$ 5, $6", "$"])
def test_amounts_of_money_are_no_formulas(text: str) -> None:
    assert all(kind != "math" for kind, _ in inline(text))


def test_an_opening_without_an_end_keeps_its_backslash() -> None:
    assert inline("so \\(x") == [("text", "so "), ("math", "\\("), ("text", "x")]


@pytest.mark.parametrize("inner", ["a\n=\nb", "a\n- b", "# a", "> a", "a\n---", "    a"])
def test_lines_of_a_formula_are_no_blocks(inner: str) -> None:
    text = f"\\[\n{inner}\n\\]"
    [token] = markdown_parser().parse(text)
    assert (token.type, token.content) == ("math_block", text)


def test_a_blank_line_means_that_it_was_no_formula() -> None:
    assert [token.type for token in markdown_parser().parse("$$\na\n\nb")][::3] == ["paragraph_open"] * 2


def test_html_is_text() -> None:
    assert inline("<b>bold</b>") == [("text", "<b>bold</b>")]
