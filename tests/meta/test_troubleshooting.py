"""Every message on the troubleshooting page is one that the program can still give."""

import ast
import re
from collections.abc import Iterator

from tests.meta.source_tree import ROOT, sources

PAGE = ROOT / "docs" / "troubleshooting.md"
BLOCK = re.compile(r"^```\n(.*?)^```$", re.M | re.S)


def documented() -> list[str]:
    """The messages on the page, without "error: "."""
    lines = [line for block in BLOCK.findall(PAGE.read_text("utf-8")) for line in block.splitlines()]
    assert all(line.startswith("error: ") for line in lines)
    return [line.removeprefix("error: ") for line in lines]


def templates(text: str) -> Iterator[str]:
    """Every string in a source, with … for each value in it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def without_ends(message: str) -> str:
    """A message, without the values at its ends: some are added to the words by the caller."""
    return message.strip("… ").removesuffix(":").strip()


def test_every_message_on_the_page_is_in_the_source() -> None:
    known = "\n".join(template for text in sources().values() for template in templates(text))
    assert [message for message in documented() if without_ends(message) not in known] == []


def test_the_page_is_long_and_says_nothing_twice() -> None:
    messages = documented()
    assert len(messages) > 80
    assert len(set(messages)) == len(messages)


def test_values_in_a_string_become_one_sign() -> None:
    assert set(templates("""f'no {a!r} at {b:g} {"x"}'""")) >= {"no … at … …"}
    assert "a b" in templates("x = 'a '  'b'")


def test_a_message_that_is_gone_would_be_seen() -> None:
    known = "\n".join(template for text in sources().values() for template in templates(text))
    assert without_ends("… is not a message of this program: …") not in known
