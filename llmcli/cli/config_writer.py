"""Changes one value of a configuration file and nothing else: comments, order and spelling stay.

tomlkit knows TOML's layout; what a key may be and hold is checked before, by `cli/config.py`, which calls this.
"""

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcli.cli.layers import ALIASES, DEFAULTS, canonical, shown
from llmcli.errors import OutputError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

Value = str | int | float | bool | list[str]


def write_setting(path: Path, section: Sequence[str], key: str, value: Value) -> None:
    """Set `key` in a section such as ("models", "owner/name"), under the name that the file already has for it.

    Raises:
        OutputError: the file can not be written; it is as it was.
    """
    import tomlkit

    document = _load(path)
    table = _table_with(document, section, key)
    if table is None:
        table = document
        for name in section:
            if name not in table:
                table[name] = tomlkit.table(is_super_table=name != section[-1])
            table = table[name]
    table[_spelling(table, section, key) or key] = value
    _replace(path, tomlkit.dumps(document))


def remove_setting(path: Path, section: Sequence[str], key: str) -> bool:
    """Remove `key` from a section; returns whether it was there.

    Raises:
        OutputError: the file can not be written; it is as it was.
    """
    import tomlkit

    document = _load(path)
    table = _table_with(document, section, key)
    if table is None:
        return False
    del table[_spelling(table, section, key)]
    _replace(path, tomlkit.dumps(document))
    return True


def _load(path: Path) -> "TOMLDocument":
    import tomlkit

    return tomlkit.parse(path.read_bytes().decode("utf-8-sig") if path.is_file() else "")


def _table_with(document: "TOMLDocument", section: Sequence[str], key: str) -> Any:
    """The table that holds `key` for a section; keys above all sections belong to the defaults."""
    table: Any = document
    if tuple(section) == (DEFAULTS,) and _spelling(document, section, key) is not None:
        return document
    for name in section:
        if name not in table:
            return None
        table = table[name]
    return table if _spelling(table, section, key) is not None else None


def _spelling(table: Any, section: Sequence[str], key: str) -> str | None:
    """The name that the file has for a key; an alias is no option and has one name."""
    read = str if tuple(section) == (ALIASES,) else canonical
    names = (name for name, value in table.items() if not isinstance(value, dict))
    return next((name for name in names if read(name) == key), None)


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all; a link stays a link, and permissions stay."""
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        descriptor, name = tempfile.mkstemp(prefix=".config-", dir=target.parent)
        try:
            with open(descriptor, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, mode)
            os.replace(name, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise OutputError(f"{shown(path)} can not be written: {error.strerror}") from error
