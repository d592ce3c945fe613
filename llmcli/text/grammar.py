"""Holds an answer to a form: which tokens may come next so that the text becomes what was asked for.

`GrammarCompiler` turns a `StructuredOutput` into a `Matcher` for the tokens of one model; llguidance has the automata.
A matcher is advanced by the tokens of the answer alone, so another one that is given the same tokens stands at the same
place. Knows no request, no batch and no tensor: `engine/constraints.py` keeps one matcher for each sequence.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmcli.errors import RequestError, quote
from llmcli.structured import StructuredOutput

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

    from llmcli.text.tokenizer import Tokenizer

# Compiled forms, in memory only: as many as sequences run, so that none is compiled again for them.
MAX_KEPT = 256
MAX_LEXER_STATES = 50_000  # of one matcher, at 1 to 2 KB each
MARK_TOKENS = 32  # more than a mark has
# White space between the parts of JSON, as people write it: without a bound a weak model may write nothing else.
WHITE_SPACE = r" ?|\n{1,2}[ \t]{0,20}"


class Matcher:
    """The form of one answer, and how far the answer has come. Made by `GrammarCompiler.matcher`.

    Attributes:
        allowed: one bit for each token that may come next: bit i % 8 of byte i // 8 is token i. The end-of-sequence
            tokens are among them when the text so far is whole.
        finished: nothing but the end may come.
    """

    def __init__(
        self,
        compiled: "LLMatcher",
        num_bytes: int,
        ends: bytes,
        wait: "_Mark | None" = None,
        opening: int | None = None,
    ) -> None:
        self.allowed = b""
        self.finished = False
        self._compiled = compiled
        self._num_bytes = num_bytes
        self._ends = ends
        self._wait = wait
        self._opening = opening  # a first token that the form need not allow: only after it, it waits
        self._look()

    def accept(self, token_id: int) -> None:
        """Take in the next token of the answer.

        Raises:
            RequestError: the form does not allow it, or can not be followed any further.
        """
        if self.finished:
            return  # an end, where ends are no reason to stop
        opening, self._opening = self._opening, None
        if opening is not None:
            self._wait, self.allowed = self._wait if token_id == opening else None, b""
        if self._wait is None:
            self._compiled.consume_token(token_id)
        elif self._wait.completed_by(token_id):
            self._wait = None
        self._look()

    def _look(self) -> None:
        compiled = self._compiled
        if self._wait is not None and self._opening is None:
            # Anything but an end, as nothing of the form is there.
            self.allowed = bytes(255 ^ byte for byte in self._ends) if not self.allowed else self.allowed
            return
        if not compiled.is_stopped():
            self.allowed = compiled.compute_bitmask()[: self._num_bytes]
        if compiled.is_error():
            raise RequestError(f"the answer can not be held to its form: {_reason(compiled.get_error())}")
        if compiled.is_stopped():
            self.finished, self.allowed = True, self._ends
        if self._opening is not None and not self.finished:
            self.allowed = with_id(self.allowed, self._opening)


class _Mark:
    """Waits for a mark in the text of an answer."""

    def __init__(self, tokenizer: "Tokenizer", mark: str) -> None:
        self._tokenizer = tokenizer
        self._mark = mark.strip()
        self._ids: list[int] = []

    def completed_by(self, token_id: int) -> bool:
        """Take in a token; whether the text now has the mark."""
        self._ids = [*self._ids[1 - MARK_TOKENS :], token_id]
        return self._mark in self._tokenizer.decode(self._ids, skip_special_tokens=False)


class GrammarCompiler:
    """Compiles forms for one tokenizer; safe to share between threads.

    Args:
        vocab_size: of the model, at least that of the tokenizer; the ids beyond are never allowed.
        eos_ids: the ids that end a sequence.
    """

    def __init__(self, tokenizer: "Tokenizer", vocab_size: int, eos_ids: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_ids = sorted(i for i in eos_ids if i < vocab_size)
        self._kept: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, form: StructuredOutput) -> Matcher:
        """A matcher at the beginning of an answer, or behind the text that it begins with.

        Raises:
            RequestError: the form is wrong, not supported, too large, or nothing has it.
        """
        compiled = self._compiled(form).deep_copy()
        if form.begun:
            tokens = self._vocabulary.greedy_tokenize(form.begun)
            if compiled.try_consume_tokens(tokens) < len(tokens) or compiled.is_error():
                raise RequestError(
                    f"the answer begins with “{quote(form.begun, 40)}”, which does not fit {quote(str(form))}",
                    fix="leave out the form, or have the answer begin anew",
                    param=form.kind,
                )
        wait, opening = None, None
        if form.after and not form.begun:
            opening = self._one_id(form.opening) if form.opening else None
            if opening is not None or not form.opening:
                wait = _Mark(self._tokenizer, form.after)
        return Matcher(compiled, (self._vocab_size + 7) // 8, self._ends, wait, opening)

    def _one_id(self, mark: str) -> int | None:
        """The id of a mark that is one token."""
        ids = self._tokenizer.encode(mark.strip(), add_special_tokens=False)
        return ids[0] if len(ids) == 1 and ids[0] < self._vocab_size else None

    def _compiled(self, form: StructuredOutput) -> "LLMatcher":
        key = (form.kind, form.text)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._compile(form)
                if len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def _compile(self, form: StructuredOutput) -> "LLMatcher":
        from llguidance import LLMatcher

        compiled = LLMatcher(self._vocabulary, _source(form), log_level=0, limits=_limits())
        if compiled.is_error():
            raise _refused(form, compiled.get_error())
        compiled.compute_bitmask()  # tells whether anything can begin; its copies need not work it out again
        if compiled.is_error():
            raise _refused(form, compiled.get_error())
        return compiled

    @cached_property
    def _vocabulary(self) -> "LLTokenizer":
        from llguidance import LLTokenizer

        try:
            return LLTokenizer(self._tokenizer.to_json(), n_vocab=self._vocab_size, eos_token=self._eos_ids)
        except (ValueError, RuntimeError) as error:
            raise RequestError(
                f"answers of this model can not be held to a form: {quote(str(error))}", param="structured"
            ) from None

    @cached_property
    def _ends(self) -> bytes:
        bits = bytearray((self._vocab_size + 7) // 8)
        for token_id in self._eos_ids:
            bits[token_id // 8] |= 1 << token_id % 8
        return bytes(bits)


def check_form(form: StructuredOutput) -> None:
    """Raise what compiling a form would raise for any model, before there is one.

    Raises:
        RequestError: the form is wrong, not supported or too large.
    """
    from llguidance import LLMatcher

    is_error, messages = LLMatcher.validate_grammar_with_warnings(_source(form), None, limits=_limits())
    if is_error:
        raise _refused(form, messages[0])


def _limits() -> "LLParserLimits":
    from llguidance import LLParserLimits

    return LLParserLimits(max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)


def with_id(allowed: bytes, token_id: int) -> bytes:
    """A mask with one more token in it."""
    bits = bytearray(allowed)
    bits[token_id // 8] |= 1 << token_id % 8
    return bytes(bits)


def without(allowed: bytes, banned_ids: Collection[int]) -> bytes:
    """A mask with some tokens taken out; empty when none is left."""
    bits = bytearray(allowed)
    for token_id in banned_ids:
        if token_id // 8 < len(bits):
            bits[token_id // 8] &= ~(1 << token_id % 8)
    return b"" if bits.count(0) == len(bits) else bytes(bits)


def _source(form: StructuredOutput) -> str:
    """The form in llguidance's terms.

    Raises:
        RequestError: a grammar in GBNF is broken.
    """
    from llguidance import LLMatcher

    if form.kind == "json":
        return _schema_source('{"type": "object"}')
    if form.kind == "json_schema":
        return _schema_source(form.text)
    if form.kind == "regex":
        return LLMatcher.grammar_from_regex(form.text)
    if form.kind == "choice":
        return "start: CHOICE\nCHOICE: " + " | ".join(
            json.dumps(text, ensure_ascii=False) for text in json.loads(form.text)
        )
    return _lark(form.text)


def _schema_source(schema: str) -> str:
    from llguidance import LLMatcher

    objects = "{}" if schema.strip() == "true" else schema  # its options go into an object
    return LLMatcher.grammar_from_json_schema(objects, None, {"whitespace_pattern": WHITE_SPACE})


def _lark(text: str) -> str:
    """A grammar in Lark's form; one in GBNF, as llama.cpp has them, is turned into that."""
    if "::=" not in text:
        return text
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return gbnf_to_lark(text)
    except RecursionError:
        raise RequestError("grammar is nested too deeply", param="grammar") from None
    except Exception as error:  # its own errors, and what slips through its parser
        raise RequestError(f"grammar is no GBNF: {quote(str(error))}", param="grammar") from None


def _refused(form: StructuredOutput, message: str) -> RequestError:
    """The error for a form that llguidance does not take, with the place where it is wrong."""
    reason, why = _reason(message), ""
    if form.kind == "json_schema":
        place = _place_in_schema(form.text, message)
        why = f"at {quote(place)} in the schema" if place else ""
    elif form.kind == "regex":
        caret = re.search(r"^    ( *)\^", message, re.M)
        why = f"at character {len(caret[1]) + 1} of {quote(form.text, 80)}" if caret else ""
    elif form.kind == "grammar" and (found := re.match(r"(?:at )?(\d+)\((\d+)\)", message)):
        why = f"at line {found[1]}, character {found[2]}"
    return RequestError(f"{form.kind} can not be used: {reason}", why=why, param=form.kind)


def _reason(message: str) -> str:
    """What a message of llguidance says in one line."""
    inner = re.search(r"^error: (.+)$", message, re.M)
    first = inner[1] if inner else re.sub(r"^(?:at )?\d+\(\d+\): ", "", message.strip()).split("\n", 1)[0]
    return "no text fits it" if first.startswith("NoExtension") else quote(first, 160)


def _place_in_schema(text: str, message: str) -> str:
    """Where in a schema the key or value stands that a message names, as a JSON pointer."""
    named = r'(?:Unimplemented keys: \["([^"]+)"|Resource \'([^\']+)\'|[^:]*: (\S+)$)'
    found = re.search(named, message.split("\n", 1)[0])
    word = next(filter(None, found.groups()), None) if found else None
    return "" if word is None else next(_pointers(json.loads(text), word, ""), "")


def _pointers(value: Any, word: str, path: str) -> Iterator[str]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        if word in (key, inner):
            yield f"{path}/{key}"
        yield from _pointers(inner, word, f"{path}/{key}")
