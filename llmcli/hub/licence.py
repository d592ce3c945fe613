"""The licence of a model in a folder: its text, and the name that the model's card gives it.

Knows nothing of what licences mean, and opens no connection. Called by `llmcli show`, by a chat's `/show license`, and
by `llmcli quantize` for the card of the new model.
"""

import re
from pathlib import Path

MAX_CHARS = 1 << 16
_FILE = re.compile(r"(licen[cs]e|use_policy)[\w.-]*", re.IGNORECASE)
_FIELD = re.compile(r"^(license|license_name): *([\w.-]+) *$", re.MULTILINE)


def licence_text(folder: Path) -> str | None:
    """The text of the licence's file, else its name; None where nothing tells of one."""
    for path in sorted(folder.glob("*")):
        if _FILE.fullmatch(path.name) and (text := _read(path)):
            return text
    return licence_name(folder)


def licence_name(folder: Path) -> str | None:
    """As the card has it, such as "apache-2.0"; the maker's own goes by the name that the maker gives it."""
    fields = card_fields(folder)
    return fields.get("license_name") or fields.get("license")


def card_fields(folder: Path) -> dict[str, str]:
    """`license`, and `license_name` for one of the maker's own, from the head of the card: the README.md beside it."""
    card = _read(folder / "README.md")
    return dict(_FIELD.findall(card.partition("\n---")[0])) if card.startswith("---\n") else {}


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_CHARS)
    except OSError:
        return ""
