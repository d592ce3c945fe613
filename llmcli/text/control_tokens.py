"""Keeps what people write apart from the control tokens of a model.

A tokenizer turns the text `<|im_end|>` into one control token, no matter who wrote it. Here a rendered chat
is encoded so that only the template's own markers become control tokens, and the same characters in a message
stay text.

Owns the set of control tokens, the marking of messages, and the twin tokenizer. Knows nothing of templates:
it is given two renderings. Called by `text/tokenizer.py`.
"""

import json
import re
import secrets
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Tokenizer


@dataclass(frozen=True, slots=True)
class _Span:
    """A control token in a text: its id and where it stands, in characters."""

    token_id: int
    start: int
    end: int


class ControlTokens:
    """The control tokens of one tokenizer: every added token, flagged special or not, but runs of white
    space."""

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        # Digits, since these come through whatever a template does to a text (JSON, repr, upper case), and
        # secret ones, so that nobody can write them.
        self._open, self._close = (f"{secrets.randbelow(10**20):020}" for _ in range(2))
        added = backend.get_added_tokens_decoder()
        self._tokens = {
            i: token for i, token in added.items() if token.special or token.content.strip(" \t\n▁")
        }
        self.ids = frozenset(self._tokens)
        contents = sorted({token.content for token in self._tokens.values()}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, contents)) or "(?!)")
        self._prefixes = frozenset(text[:size] for text in contents for size in range(1, len(text)))
        self._suffixes = frozenset(text[-size:] for text in contents for size in range(1, len(text)))
        self._longest = max(map(len, contents), default=0)
        self._normalized = backend.normalizer is not None and any(t.normalized for t in self._tokens.values())
        self._unknown = getattr(backend.model, "unk_token", None)

    def mark(self, value: Any) -> Any:
        """A copy of a JSON value with a mark before and after every control token, and an empty pair where a
        text begins or ends with a part of one, for its neighbour may hold the rest. Equal to `value` where
        nothing is marked."""
        if isinstance(value, str):
            return self._fence(self._mark_text(value))
        if isinstance(value, dict):
            return {self._mark_text(key): self.mark(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.mark(item) for item in value]
        return value

    def _mark_text(self, text: str) -> str:
        spans = [match.span() for match in self._pattern.finditer(text)]
        if self._normalized:  # such a token may match other characters than its own
            spans = sorted({*spans, *((span.start, span.end) for span in self._find(text))})
        pieces, position = [], 0
        for start, end in spans:
            if start >= position:
                pieces += [text[position:start], self._open, text[start:end], self._close]
                position = end
        pieces.append(text[position:])
        return "".join(pieces)

    def _fence(self, text: str) -> str:
        """Put an empty pair where a partial token touches the end, inside the white space that templates
        trim."""
        sizes = range(1, self._longest)
        body = text.rstrip()
        if any(body[-size:] in self._prefixes for size in sizes):
            text = body + self._open + self._close + text[len(body) :]
        body = text.lstrip()
        if any(body[:size] in self._suffixes for size in sizes):
            text = text[: len(text) - len(body)] + self._open + self._close + body
        return text

    def encode(self, plain: str, marked: str) -> list[int]:
        """Encode a rendered chat.

        Args:
            plain: the chat rendered from the messages as they are.
            marked: the same rendered from the marked messages.

        A template may look at the very characters next to a mark (say, strip newlines after `</think>`), so
        the two can differ by more than marks. The k-th control token of one is the k-th of the other as long
        as both have the same ones; then the marks are carried over and `plain` is encoded, as a model expects
        it. Else `marked` is, without its marks, which is always safe.
        """
        in_plain, in_marked = self._find(plain), self._find(marked)
        written = [
            marked.endswith(self._open, 0, span.start) and marked.startswith(self._close, span.end)
            for span in in_marked
        ]
        same = [span.token_id for span in in_plain] == [span.token_id for span in in_marked]
        text, spans = (plain, in_plain) if same else (marked, in_marked)
        pieces, position = [], 0
        for span, by_user in zip(spans, written, strict=True):
            if not by_user:
                pieces += [text[position : span.start], self._twin.names[span.token_id]]
                position = span.end
        pieces.append(text[position:])
        return self._twin.encode("".join(pieces).replace(self._open, "").replace(self._close, ""))

    def _find(self, text: str) -> list[_Span]:
        """The control tokens that the tokenizer itself sees in a text."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        spans = []
        for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            token = self._tokens.get(token_id)
            if token is not None and self._is_written(token, text[start:end]):
                # The white space that a token takes with it is left to the twin, which takes it the same way.
                start += len(text[start:end]) - len(text[start:end].lstrip()) if token.lstrip else 0
                end -= len(text[start:end]) - len(text[start:end].rstrip()) if token.rstrip else 0
                spans.append(_Span(token_id, start, end))
        return spans

    def _is_written(self, token: AddedToken, text: str) -> bool:
        """False for the unknown token standing for some other character."""
        if token.content.strip() in text:
            return True
        return token.normalized and token.content != self._unknown

    @cached_property
    def _twin(self) -> "_Twin":
        return _Twin(self._backend, {i: token.content for i, token in self._tokens.items()})


class _Twin:
    """A tokenizer in which each control token goes by a private name, so that its old name is plain text.

    Built when a message first needs it, for it costs as much as loading the tokenizer.
    """

    def __init__(self, backend: Tokenizer, contents: dict[int, str]) -> None:
        secret = secrets.token_hex(8)
        self.names = {token_id: f"<{secret} {token_id}>" for token_id in contents}
        names = {content: self.names[token_id] for token_id, content in contents.items()}
        parts = json.loads(backend.to_str())
        parts["post_processor"] = None
        parts["model"] = _rename(parts["model"], names)
        for token in parts["added_tokens"]:
            if token["content"] in names:
                token |= {"content": names[token["content"]], "single_word": False, "normalized": False}
        self._backend = Tokenizer.from_str(json.dumps(parts))
        # An added token that is no longer in the model's vocabulary gets a new id, and may shift others.
        olds = {token.content: i for i, token in backend.get_added_tokens_decoder().items()}
        self._ids = {self._backend.token_to_id(names.get(text, text)): i for text, i in olds.items()}

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which `names` stand for control tokens."""
        ids = self._backend.encode(text, add_special_tokens=False).ids
        return [self._ids.get(i, i) for i in ids]


def _rename(model: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The model with private names in its vocabulary and without merges that would spell a control token."""
    names = {old: new for old, new in names.items() if old != model.get("unk_token")}
    vocab = model["vocab"]
    if isinstance(vocab, list):  # Unigram: the place in the list is the id
        return model | {"vocab": [[names.get(piece, piece), score] for piece, score in vocab]}
    model = model | {"vocab": {names.get(token, token): i for token, i in vocab.items()}}
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not _spells(merge, names)]
    return model


def _spells(merge: str | list[str], names: dict[str, str]) -> bool:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left in names or right in names or left + right in names
