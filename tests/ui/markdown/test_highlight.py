"""Code gets colours and keeps its characters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcli.ui.markdown.highlight import MAX_CONTEXT, Highlighter


def colours(info: str, *lines: str) -> list[bool]:
    """Whether each line has any colour."""
    highlighter = Highlighter(info)
    return [any(span.style for span in highlighter.line(line).spans) for line in lines]


@pytest.mark.parametrize(
    ("info", "line", "coloured"),
    [
        ("python", "def f(): pass", True),
        ("Python title=x", "def f(): pass", True),
        ("py", "def f(): pass", True),
        ("{.python}", "def f(): pass", True),
        ("nonsense", "def f(): pass", False),
        ("", "def f(): pass", False),
        ("python", "def f(): pass" + " " * 1000, False),
    ],
)
def test_the_first_word_behind_the_fence_names_the_language(info: str, line: str, coloured: bool) -> None:
    assert colours(info, line) == [coloured]


def test_a_string_of_several_lines_is_known_as_one() -> None:
    highlighter = Highlighter("python")
    first, second, third = (highlighter.line(line) for line in ('x = """one', "two", 'three"""'))
    assert {str(span.style) for span in second.spans} == {str(first.spans[-1].style)}
    assert third.plain == 'three"""'


@given(
    st.lists(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=30), max_size=8),
    st.sampled_from(["python", "c", "html", "diff", "console", "json", "pycon", "make"]),
)
@settings(deadline=None)
def test_no_character_is_changed(lines: list[str], language: str) -> None:
    highlighter = Highlighter(language)
    assert [highlighter.line(line).plain for line in lines] == lines


def test_tabs_stay() -> None:
    assert Highlighter("make").line("\tgcc -o a\t# b").plain == "\tgcc -o a\t# b"


def test_what_is_read_again_for_a_line_is_bounded() -> None:
    highlighter = Highlighter("python")
    for number in range(3 * MAX_CONTEXT):
        highlighter.line(f"x = {number}")
        assert len(highlighter._context) <= MAX_CONTEXT
