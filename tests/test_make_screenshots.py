"""Pictures of the program: what is on the screen is in the picture, and nothing is loaded from elsewhere."""

import re
import shutil
from xml.etree import ElementTree

import pytest

from scripts.make_screenshots import SHOTS, Shot, Step, as_svg, plain, take

TEXT = "{http://www.w3.org/2000/svg}text"


def words(svg: str) -> str:
    """All text of a picture."""
    return " ".join("".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(TEXT)).replace(
        "\xa0", " "
    )


def test_a_picture_has_the_text_and_the_colours() -> None:
    svg = as_svg("x", 40, ["$ llmcli \x1b[1;31mred\x1b[0m", "ünï <b>"])
    assert "llmcli" in words(svg)
    assert "ünï <b>" in words(svg)
    assert re.search(r"fill: ?#[0-9a-f]{6};font-weight: bold", svg)


def test_a_picture_loads_nothing() -> None:
    svg = as_svg("x", 40, ["text"])
    assert not re.search(r"url\((?!#)|@font-face|href=\"http", svg)


def test_the_same_screen_is_the_same_picture() -> None:
    assert as_svg("x", 40, ["text"]) == as_svg("x", 40, ["text"])


def test_colours_are_no_text() -> None:
    assert plain("\x1b[1m\x1b[38;5;3ma\x1b[39m b\x1b[0m") == "a b"


def test_names_of_pictures_are_unique() -> None:
    assert len({shot.name for shot in SHOTS}) == len(SHOTS)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_a_window_shows_what_was_typed_and_what_came_of_it() -> None:
    steps = (Step("echo one  two", "$ ", 2), Step("llmcli --version", "$ ", 3))
    lines = [plain(line) for line in take(Shot("probe", 60, 10, steps))]
    assert lines[:3] == ["$ echo one  two", "one two", "$ llmcli --version"]
    assert lines[3].startswith("llmcli ")
    assert len(lines) == 4
