"""Tells a model's reasoning from its answer, in the text of an answer as it streams.

Owns the marks that stand around reasoning: those that a tokenizer's `response_template` names (the form of transformers
5), those of known model families, and `<think>`. Knows nothing of tokens or screens. The marks are found when a
tokenizer is loaded; front ends split answers with them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class ReasoningMarks:
    """What stands before and after reasoning."""

    opening: str
    closing: str

    def open_at_end(self, prompt: str) -> bool:
        """Whether a prompt ends with the opening, so that the answer begins inside of the reasoning."""
        return prompt.rstrip().endswith(self.opening.strip())


THINK = ReasoningMarks("<think>", "</think>")
_KNOWN = (
    THINK,  # Qwen 3, DeepSeek R1, and most others
    ReasoningMarks("[THINK]", "[/THINK]"),  # Magistral
    ReasoningMarks("<seed:think>", "</seed:think>"),  # Seed-OSS
    ReasoningMarks("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    ReasoningMarks("<|channel>thought\n", "<channel|>"),  # Gemma 4
)
_FIELDS = ("reasoning_content", "thinking", "reasoning")


def find_marks(config: Mapping[str, Any], template: object, added_tokens: Iterable[str]) -> ReasoningMarks:
    """The marks of a model; `<think>` where nothing tells.

    Args:
        config: tokenizer_config.json. Of its `response_template` only literal marks are read: patterns of strangers
            are not run.
        template: the chat template in any of its forms.
        added_tokens: texts of the tokens that were added to the vocabulary.
    """
    declared = _declared(config.get("response_template"))
    if declared is not None:
        return declared
    written, tokens = str(template), "\n".join(added_tokens)
    for marks in _KNOWN:
        if all(mark.strip() in written or mark.strip() in tokens for mark in (marks.opening, marks.closing)):
            return marks
    return THINK


def _declared(template: object) -> ReasoningMarks | None:
    fields = template.get("fields") if isinstance(template, Mapping) else None
    if not isinstance(fields, Mapping):
        return None
    for name in _FIELDS:
        field = fields.get(name)
        if isinstance(field, Mapping):
            opening, closing = _literal(field.get("open")), _literal(field.get("close"))
            return ReasoningMarks(opening, closing) if opening and closing else None
    return None


def _literal(value: object) -> str:
    """A mark; the first, where several may stand."""
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) and value.strip() else ""


class Split(NamedTuple):
    """What is now certain of the reasoning, and of the answer that follows it."""

    reasoning: str
    answer: str


class _Place(Enum):
    START = auto()  # nothing but white space and a part of the opening came
    INSIDE = auto()
    BEHIND = auto()  # between reasoning and answer
    ANSWER = auto()


class ReasoningSplitter:
    """Splits one answer. The results do not depend on how it is cut into pieces.

    Only at the beginning of an answer marks count: further on they are text, as in an answer about such marks. White
    space around the reasoning is dropped.

    Args:
        inside: the prompt has opened the reasoning already. The model may still open it once more.
    """

    def __init__(self, marks: ReasoningMarks = THINK, *, inside: bool = False) -> None:
        self._opening, self._closing = marks.opening.strip(), marks.closing.strip()
        self._place = _Place.START
        self._unmarked = _Place.INSIDE if inside else _Place.ANSWER  # where text without an opening belongs
        self._begun = False  # reasoning beyond white space came
        self._held = ""

    @property
    def inside(self) -> bool:
        """Whether the reasoning goes on."""
        opened = self._place is _Place.START and self._unmarked is _Place.INSIDE
        return opened or self._place is _Place.INSIDE

    def push(self, text: str) -> Split:
        """Take the next piece."""
        reasoning = ""
        text, self._held = self._held + text, ""
        if self._place is _Place.START:
            text = self._start(text)
        if self._place is _Place.INSIDE:
            reasoning, text = self._inside(text)
        if self._place is _Place.BEHIND:
            text = text.lstrip()
            if text:
                self._place = _Place.ANSWER
        return Split(reasoning, text)

    def finish(self) -> Split:
        """What was held back."""
        held, self._held = self._held, ""
        return Split(held.rstrip(), "") if self.inside else Split("", held)

    def _start(self, text: str) -> str:
        begin = text.lstrip()
        if begin.startswith(self._opening):
            self._place = _Place.INSIDE
            return begin[len(self._opening) :]
        if self._opening.startswith(begin):
            self._held = text
            return ""
        self._place = self._unmarked
        return text

    def _inside(self, text: str) -> Split:
        if not self._begun:
            text = text.lstrip()
        end = text.find(self._closing)
        if end >= 0:
            self._place = _Place.BEHIND
            return Split(text[:end].rstrip(), text[end + len(self._closing) :])
        sizes = range(min(len(self._closing) - 1, len(text)), 0, -1)
        keep = next((size for size in sizes if self._closing.startswith(text[-size:])), 0)
        certain = text[: len(text) - keep].rstrip()
        self._held = text[len(certain) :]
        self._begun = self._begun or bool(certain)
        return Split(certain, "")
