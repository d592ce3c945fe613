"""Token ids to text, as they come: whole characters only, and nothing of a stop string.

Owns the text of one choice of a request that is not shown yet. Knows nothing of requests or sampling. Called
by the engine for every new token.
"""

from collections.abc import Sequence

from llmcli.text.tokenizer import Tokenizer

_REPLACEMENT = "\ufffd"  # what decoders write for bytes that are no character, or not yet
_MAX_CHARACTER_TOKENS = 4  # UTF-8 has at most four bytes a character


class Detokenizer:
    """The incremental decoder of one sequence.

    The pieces from `push` and `finish`, put together, are `tokenizer.decode` of all ids, cut at the first
    stop string.

    Args:
        tokenizer: decodes a few ids at a time.
        stop: strings that end the text. The match that ends first counts, of those the longest.
        include_stop: keep the matched string.
        skip_special_tokens: leave out special tokens.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stop: Sequence[str] = (),
        include_stop: bool = False,
        skip_special_tokens: bool = True,
    ) -> None:
        self._pieces = _PieceDecoder(tokenizer, skip_special_tokens)
        self._stop = _StopFilter(tuple(stop), include_stop)

    @property
    def matched(self) -> str | None:
        """The stop string that ended the text, if one has; may be set by `push` and by `finish`."""
        return self._stop.matched

    def push(self, ids: Sequence[int]) -> str:
        """Text that is now certain; empty while a character or a possible stop string is incomplete."""
        return self._stop.push("".join(map(self._pieces.push, ids)))

    def finish(self) -> str:
        """What was held back."""
        return self._stop.push(self._pieces.finish()) + self._stop.finish()


class _PieceDecoder:
    """Decodes a window of ids: the last one whose text is out (the anchor), and those whose text is not.

    The anchor is there since decoders treat the first token of a text in their own way (the leading space).
    Text is out only when no later token can change it. Two things can: bytes of a character that is not
    complete, seen as a U+FFFD at the end; and a run of byte-fallback tokens, which decoders turn into U+FFFD
    as a whole when any of it is not UTF-8, so a run is held until it ends. Tokens that decode to nothing
    never enter the window. This is why `tokenizers.decoders.DecodeStream` is not used: it does none of the
    last two, and differs from a whole decode.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._anchor: list[int] = []
        self._anchor_text = ""
        self._held: list[int] = []

    def push(self, token_id: int) -> str:
        if token_id in self._skipped or not self._tokenizer.id_to_token(token_id):
            return ""
        self._held.append(token_id)
        if token_id in self._tokenizer.byte_ids:
            return ""
        text = self._decode(self._anchor + self._held)
        if not text.startswith(self._anchor_text):
            return ""
        if text.endswith(_REPLACEMENT):
            return self._release_part(text)
        return self._release(text, len(self._held))

    def finish(self) -> str:
        text = self._decode(self._anchor + self._held)[len(self._anchor_text) :] if self._held else ""
        self._held = []
        return text

    def _release(self, text: str, count: int) -> str:
        """Move the anchor over the first `count` held ids; `text` is that of anchor and these ids."""
        new = text[len(self._anchor_text) :]
        self._anchor, self._held = [self._held[count - 1]], self._held[count:]
        self._anchor_text = self._tokenizer.decode_one(self._anchor[0])
        return new

    def _release_part(self, text: str) -> str:
        """Keep the window short where a model writes bytes that never become a character."""
        count = len(self._held)
        if count <= 2 * _MAX_CHARACTER_TOKENS:
            return ""
        for split in range(count - _MAX_CHARACTER_TOKENS, count - 2 * _MAX_CHARACTER_TOKENS, -1):
            left = self._decode(self._anchor + self._held[:split])
            if left + self._decode(self._held[split:]) == text:  # no character lies across
                return self._release(left, split)
        return ""

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)


class _StopFilter:
    """Cuts a stream of text at the first stop string, holding back only what could become one."""

    def __init__(self, stop: tuple[str, ...], include: bool) -> None:
        self._stop = stop
        self._include = include
        self._prefixes = frozenset(text[:size] for text in stop for size in range(1, len(text)))
        self._longest = max(map(len, stop), default=0)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        if self.matched is not None or not text:
            return ""
        if not self._stop:
            return text
        text = self._held + text
        found = [(text.find(stop) + len(stop), -len(stop), stop) for stop in self._stop if stop in text]
        if found:
            end, _, self.matched = min(found)
            self._held = ""
            return text[: end if self._include else end - len(self.matched)]
        sizes = range(min(self._longest - 1, len(text)), 0, -1)
        keep = next((size for size in sizes if text[-size:] in self._prefixes), 0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        text, self._held = self._held, ""
        return text
