"""Reads a text file that goes into a prompt or describes a form, and refuses what is no text."""

import os
import stat

from llmcli.errors import UsageError, quote

MAX_BYTES = 16 << 20


def read_text(name: str) -> str:
    """The text of a file, without the newlines at its end; `~` is the home folder.

    Raises:
        UsageError: there is no such file, it is too large, empty, or no UTF-8 text; names the first bad byte.
    """
    path = os.path.expanduser(name)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{quote(name)} is a folder", fix="name a file in it")
        if status.st_size > MAX_BYTES:
            raise UsageError(f"{quote(name)} has {status.st_size:,} bytes, at most {MAX_BYTES:,} are read")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "is no name for a file"
        raise UsageError(f"{quote(name)} can not be read: {quote(reason)}") from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{quote(name)} has more than {MAX_BYTES:,} bytes")
    if b"\x00" in data:
        raise UsageError(
            f"{quote(name)} is no text: byte {data.index(0) + 1} is zero", fix="convert it to UTF-8"
        )
    try:
        text = data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        bad = f"byte {error.start + 1} is {data[error.start]:#04x}"
        raise UsageError(f"{quote(name)} is not UTF-8 text: {bad}", fix="convert it to UTF-8") from None
    if not text.strip():
        raise UsageError(f"{quote(name)} is empty")
    return text
