"""JSON from strangers, read strictly: no duplicate keys, no NaN, no deep nesting, no endless numbers.

Used for model files and for lines of a prompt file; raises ValueError with the reason, callers add the place.
"""

import json
import math
import re
from typing import Any

MAX_DEPTH = 64
MAX_DIGITS = 400
_MARKS = re.compile(
    r'\\.|["\[\]{}]', re.DOTALL
)  # what decides on the depth: brackets, quotes, what a \ escapes


def loads(data: bytes) -> Any:
    """Parse UTF-8 JSON.

    Raises:
        ValueError: not UTF-8, not JSON, or one of the things named above; the message says what and where.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8") from None
    _check_depth(text)
    if text.startswith("\ufeff"):
        raise ValueError("column 1: Unexpected UTF-8 BOM")
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno} column {error.colno}"
        raise ValueError(f"{place}: {error.msg}") from None
    try:
        if "\\ud" in text or "\\uD" in text:  # UTF-8 itself holds none
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate (\\ud800..\\udfff) is no text") from None
    return value


def _decode(text: str) -> Any:
    """Parse; nearly all texts are one value with nothing around it, and a short one holds no long number."""
    decoder = _DECODER if len(text) > MAX_DIGITS else _SHORT_DECODER
    if text[:1] in ("{", "[", '"'):
        value, end = decoder.raw_decode(text)
        if end == len(text):
            return value
    return decoder.decode(text)


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the recursive parser sees it."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth, in_string = 0, False
    for match in _MARKS.finditer(text):
        mark = match[0]
        if mark == '"':
            in_string = not in_string
        elif in_string or mark[0] == "\\":
            continue
        elif mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nesting deeper than {MAX_DEPTH}")
        else:
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"duplicate key {key[:80]!r}")
            seen.add(key)
    return result


def _not_finite(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")


def _finite_float(text: str) -> float:
    value = float(text) if len(text) <= MAX_DIGITS else math.inf
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value


def _short_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits is too long")
    return int(text)


# Made once: json.loads would make one for each text, which costs more than parsing a short one.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_not_finite,
    parse_float=_finite_float,
    parse_int=_short_int,
)
_SHORT_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_not_finite, parse_float=_finite_float
)
