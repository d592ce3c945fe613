"""Server-sent events (WHATWG HTML, section 9.2) as OpenAI-compatible servers stream them: bytes in, data out.

Strict: a line without end, bytes that are not UTF-8 and JSON that is none are errors, never guessed at. Knows no
HTTP and no chat; `remote/stream.py` reads a response through it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from llmcli import strict_json

MAX_LINE = 1 << 20
DONE = "[DONE]"


def events(readline: Callable[[int], bytes]) -> Iterator[dict[str, Any]]:
    """The JSON object of each event, until `[DONE]` or the end of the stream.

    Args:
        readline: gives the next line, at most so many bytes of it; nothing at the end.

    Raises:
        ValueError: the stream is not of this form; says how.
    """
    for data in _data(readline):
        if data == DONE:
            return
        try:
            value = strict_json.loads(data.encode("utf-8"))
        except ValueError as error:
            raise ValueError(f"an event is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise ValueError("an event is not a JSON object")
        yield value


def _data(readline: Callable[[int], bytes]) -> Iterator[str]:
    """The data of each event: its data lines, joined with newlines."""
    lines: list[str] = []
    while raw := readline(MAX_LINE + 1):
        if len(raw) > MAX_LINE:
            raise ValueError(f"a line is longer than {MAX_LINE} bytes")
        if not raw.endswith(b"\n"):
            return  # cut off: what it belongs to is not complete
        try:
            line = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"byte {error.start + 1} of a line is not UTF-8") from None
        if not line:
            if lines:
                yield "\n".join(lines)
            lines = []
            continue
        name, _, value = line.partition(":")
        if name == "data":
            lines.append(value.removeprefix(" "))
