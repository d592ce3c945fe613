"""Generated answers in Markdown whose words are numbered, so that a lost or doubled one is seen."""

import itertools
import random
import re
from collections.abc import Iterator

from hypothesis import strategies as st

WORD = re.compile(r"q\d+q")

# What a word may look like; WORD stands for its number.
SHAPES = (
    "WORD",
    "WORD",
    "WORD",
    "WORD,",
    "**WORD**",
    "*WORD*",
    "`WORD`",
    "~~WORD~~",
    "[WORD](http://example.org/a_b)",
    "![WORD](x.png)",
    "$WORD_1$",
    "\\(WORD^2\\)",
    "<b>WORD</b>",
    "&lt;WORD",
    "猫WORD猫が好き",
    "WORD한국어",
    "👩‍👩‍👧WORD",
    "❤️WORD",
    "cafe\u0301WORD",
    "**open WORD",
    "_WORD",
    "WORD" + "x" * 30,
    "[WORD",
    "\\WORD",
)


def words(text: str) -> list[str]:
    """The numbered words of a text, in order."""
    return WORD.findall(text)


def answers(max_blocks: int = 7) -> st.SearchStrategy[str]:
    """Answers of any blocks in any order, with one newline or two between them."""
    return st.builds(
        _answer, st.lists(st.sampled_from(sorted(BLOCKS)), max_size=max_blocks), st.integers(0, 2**32)
    )


def _answer(kinds: list[str], seed: int) -> str:
    rng, numbers = random.Random(seed), itertools.count()
    parts = []
    for kind in kinds:
        parts += ["\n".join(BLOCKS[kind](rng, numbers)), rng.choice(["\n", "\n\n", "\n\n\n"])]
    return "".join(parts[: len(parts) - rng.randrange(2)])


def _line(rng: random.Random, numbers: Iterator[int], longest: int = 12) -> str:
    shapes = [rng.choice(SHAPES) for _ in range(rng.randint(1, longest))]
    return " ".join(shape.replace("WORD", f"q{next(numbers)}q") for shape in shapes)


def _paragraph(rng: random.Random, numbers: Iterator[int]) -> list[str]:
    return [_line(rng, numbers) for _ in range(rng.randint(1, 3))]


def _heading(rng: random.Random, numbers: Iterator[int]) -> list[str]:
    return [f"{'#' * rng.randint(1, 6)} {_line(rng, numbers, 4)}"]


def _setext(rng: random.Random, numbers: Iterator[int]) -> list[str]:
    return [_line(rng, numbers, 4), rng.choice(["===", "---"])]


def _list(rng: random.Random, numbers: Iterator[int]) -> list[str]:
    lines = []
    for item in range(rng.randint(1, 5)):
        marker = rng.choice(["- ", f"{item + 1}. "]) if rng.random() < 0.2 else "- "
        lines.append(marker + _line(rng, numbers, 6))
        lines += rng.choice([[], [], [""], ["  - " + _line(rng, numbers, 3)], [_line(rng, numbers, 3)]])
    return lines


def _numbered(rng: random.Random, numbers: Iterator[int]) -> list[str]:
    lines = []
    for item in range(rng.randint(1, 4)):
        lines.append(f"{item + 1}. {_line(rng, numbers, 6)}")
        lines += rng.choice([[], [""], ["", "   ```", "   x = " + f"q{next(numbers)}q", "   ```"]])
    return lines


def _quote(rng: random.Random, numbers: Iterator[int]) -> list[str]:
    prefixes = ["> ", "> > ", "> - ", ">"]
    return [rng.choice(prefixes) + _line(rng, numbers, 5) for _ in range(rng.randint(1, 4))]


def _code(rng: random.Random, numbers: Iterator[int]) -> list[str]:
    lines = [f"{'  ' * rng.randrange(3)}x = 'q{next(numbers)}q'" for _ in range(rng.randrange(6))]
    lines += rng.choice([[], ["", "\t# 猫 q" + f"{next(numbers)}q " * rng.randint(1, 30)]])
    return ["```" + rng.choice(["", "python", "nonsense"]), *lines, *rng.choice([["```"], ["```"], []])]


def _table(rng: random.Random, numbers: Iterator[int]) -> list[str]:
    columns = rng.randint(1, 5)
    rows = [[f"q{next(numbers)}q" for _ in range(columns)] for _ in range(rng.randint(1, 4))]
    body = ["| " + " | ".join(row) + " |" for row in rows]
    return ["| " + " | ".join(["head"] * columns) + " |", "|" + " --- |" * columns, *body]


def _formula(rng: random.Random, numbers: Iterator[int]) -> list[str]:
    return ["\\[", f"q{next(numbers)}q", rng.choice(["=", "- 1", "+ 2"]), f"q{next(numbers)}q", "\\]"]


def _html(rng: random.Random, numbers: Iterator[int]) -> list[str]:
    return ["<div class='x'>", _line(rng, numbers, 3), "</div>"]


def _odd(rng: random.Random, numbers: Iterator[int]) -> list[str]:
    return [rng.choice(["---", "***", "    indented", "[ref]: http://x.y", "#", "-", ">", "|", "1)", "~~~"])]


BLOCKS = {
    "paragraph": _paragraph,
    "heading": _heading,
    "setext": _setext,
    "list": _list,
    "numbered": _numbered,
    "quote": _quote,
    "code": _code,
    "table": _table,
    "formula": _formula,
    "html": _html,
    "odd": _odd,
}


def chunked(text: str, seed: int) -> list[str]:
    """The text in pieces as a model's tokens might have them: mostly short, some empty, some long."""
    rng, pieces, position = random.Random(seed), [], 0
    longest = rng.choice([1, 5, 40, 400])
    while position < len(text):
        size = rng.randrange(longest + 1)
        pieces.append(text[position : position + size])
        position += size
    return pieces
