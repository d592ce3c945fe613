"""What of an answer reaches the screen."""

import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcli.ui.view import PlainView


def shown(*pieces: str) -> str:
    out = io.StringIO()
    view = PlainView(out)
    for piece in pieces:
        view.push(piece)
    view.close()
    return out.getvalue()


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (("Hello", " there", "."), "Hello there.\n"),
        (("one\n", "\ntwo\n", "\n\n"), "one\n\ntwo\n"),
        ((), "\n"),
        (("\n\n",), "\n"),
        (("a\x1b", "[2Jb\x1b]52;c;", "c2VjcmV0\x07d"), "abd\n"),
        (("[red]not markup[/x]",), "[red]not markup[/x]\n"),
    ],
)
def test_an_answer_is_plain_text_with_one_newline_at_its_end(pieces: tuple[str, ...], text: str) -> None:
    assert shown(*pieces) == text


@given(text=st.text(st.sampled_from("ab \n\x1b[]m\x07é")), cuts=st.lists(st.integers(0, 20)))
def test_how_an_answer_is_cut_into_pieces_does_not_matter(text: str, cuts: list[int]) -> None:
    ends = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(ends)]
    assert shown(*pieces) == shown(text)
    assert "\x1b" not in shown(text)


class CountingStream(io.StringIO):
    flushes = 0

    def flush(self) -> None:
        self.flushes += 1


def test_every_piece_is_flushed() -> None:
    out = CountingStream()
    view = PlainView(out)
    view.push("a")
    view.push("b")
    assert out.flushes == 2
