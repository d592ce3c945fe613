"""The line below the prompt fits the window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.ui.hint_line import hint_line
from llmcli.ui.wrap import text_cells

HINTS = ("/help", "Ctrl-D leaves")


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (80, "model · /help · Ctrl-D leaves"),
        (28, "model · /help"),
        (12, "model"),
        (5, "model"),
        (4, "mod…"),
        (1, "m…"),
    ],
)
def test_the_last_hints_go_first_and_then_the_status_is_cut(width: int, line: str) -> None:
    assert hint_line("model", width, HINTS) == line


@given(st.text(st.sampled_from("ab 猫😀")), st.integers(4, 60))
def test_it_is_never_wider_than_the_window(status: str, width: int) -> None:
    assert text_cells(hint_line(status, width, HINTS)) <= width
