"""Model text made harmless for a terminal: escape sequences, control characters and bidirectional overrides taken out
of a stream.

Owns the recogniser of ECMA-48 control sequences. Knows nothing of who writes the text or where it is shown.
Called by the terminal front ends for every piece of text that a model or another stranger wrote.
"""

import re
from enum import Enum, auto

MAX_SWALLOWED = 4096
"""A sequence longer than this is taken as broken; text after it is shown again."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_BIDI = re.compile(r"[\u202a-\u202e\u2066-\u2069]")
"""Embeddings, overrides and isolates: they show code in another order than it has (CVE-2021-42574). The marks that
writers of Arabic and Hebrew need (U+200E, U+200F, U+061C) and the joiners of scripts and emoji are no part of it."""
_DROPPED = re.compile(f"{_CONTROL.pattern}|{_BIDI.pattern}")
_ESC, _BEL, _CSI, _CANCEL = "\x1b", "\x07", "\x9b", "\x18\x1a"
_STRING_STARTS = "\x90\x98\x9d\x9e\x9f"  # DCS, SOS, OSC, PM, APC
_STRING_STARTS_AFTER_ESC = "PX]^_"


class _State(Enum):
    TEXT = auto()
    ESCAPE = auto()  # after ESC and any intermediates
    SEQUENCE = auto()  # in a CSI sequence
    STRING = auto()  # in an OSC, DCS, SOS, PM or APC string


class Sanitizer:
    """Strips ESC sequences, C0 (but newline and tab), DEL, C1 and bidirectional controls from a stream of text.

    The result depends on the characters only, never on how they are cut into chunks. The memory is one state
    and one counter: nothing of a sequence is kept. A string sequence (OSC and its kin) also ends at a
    newline, so that an unterminated one hides at most a line.
    """

    def __init__(self) -> None:
        self._state = _State.TEXT
        self._swallowed = 0

    def push(self, text: str) -> str:
        """The harmless part of `text`, given all that was pushed before."""
        kept: list[str] = []
        position = 0
        while position < len(text):
            if self._state is _State.TEXT:
                control = _DROPPED.search(text, position)
                end = control.start() if control else len(text)
                kept.append(text[position:end])
                if control:
                    self._enter(control.group())
                position = end + 1
            else:
                kept.append(_BIDI.sub("", self._swallow(text[position])))
                position += 1
        return "".join(kept)

    def _enter(self, control: str) -> None:
        self._swallowed = 0
        if control == _ESC:
            self._state = _State.ESCAPE
        elif control == _CSI:
            self._state = _State.SEQUENCE
        elif control in _STRING_STARTS:
            self._state = _State.STRING
        else:
            self._state = _State.TEXT

    def _swallow(self, char: str) -> str:
        """Take one character inside a sequence; returns what of it is text after all."""
        self._swallowed += 1
        if char == "\n" or (char == "\t" and self._state is not _State.STRING):
            self._state = _State.TEXT
            return char
        if self._swallowed > MAX_SWALLOWED:
            self._state = _State.TEXT
            if not _CONTROL.match(char):
                return char
            self._enter(char)
            return ""
        if self._state is _State.STRING:
            self._swallow_string(char)
            return ""
        if _CONTROL.match(char):
            self._enter(char)
            return ""
        if self._state is _State.ESCAPE:
            return self._swallow_escape(char)
        return self._swallow_sequence(char)

    def _swallow_string(self, char: str) -> None:
        # Any control but BEL and CAN starts anew: ST is ESC \ or U+009C, and both leave the string this way.
        if char == _BEL or char in _CANCEL:
            self._state = _State.TEXT
        elif char != "\t" and _CONTROL.match(char):
            self._enter(char)

    def _swallow_escape(self, char: str) -> str:
        if " " <= char <= "/":
            return ""
        if char == "[":
            self._state = _State.SEQUENCE
        elif char in _STRING_STARTS_AFTER_ESC:
            self._state = _State.STRING
        else:
            self._state = _State.TEXT
            return "" if char <= "~" else char
        return ""

    def _swallow_sequence(self, char: str) -> str:
        if " " <= char <= "?":
            return ""
        self._state = _State.TEXT
        return "" if char <= "~" else char


def sanitize(text: str) -> str:
    """A whole text without what `Sanitizer` strips."""
    return Sanitizer().push(text)
