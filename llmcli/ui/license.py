"""Finds a model's licence among its files, for `/show license`. Knows nothing of what licences mean."""

import re
from pathlib import Path

MAX_CHARS = 64 * 1024
NAMES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "USE_POLICY.md")
_FIELD = re.compile(r"^license(?:_name)?:\s*(\S.*)$", re.MULTILINE)


def find_license(folder: Path) -> str | None:
    """The text of the licence file; else the name in the head of the README; else None."""
    for name in NAMES:
        text = _read(folder / name)
        if text:
            return text
    readme = _read(folder / "README.md") or ""
    head = readme[3:].partition("\n---")[0] if readme.startswith("---") else ""
    named = _FIELD.search(head)
    return named[1].strip() if named else None


def _read(path: Path) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_CHARS)
    except OSError:
        return None
