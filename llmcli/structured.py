"""What form an answer must have: `StructuredOutput`, validated when it is made, and read from a request's fields.

The form of a text is told by a JSON schema, a regular expression, a list of choices or a grammar. Knows no tokenizer:
whether a form can be followed is found out by `text/grammar.py`. Part of `SamplingParams`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

from llmcli import strict_json
from llmcli.errors import RequestError, quote

Kind = Literal["json_schema", "json", "regex", "choice", "grammar"]

# Compiling takes time that grows faster than the text: these bounds keep it well below a second.
MAX_CHARS: Mapping[str, int] = {
    "json_schema": 64 << 10,
    "json": 0,
    "regex": 8 << 10,
    "choice": 64 << 10,
    "grammar": 16 << 10,
}
MAX_PATTERN_CHARS = 8 << 10  # of all patterns in a schema together
MAX_RULES = 500  # rules or references: a chain of them is followed by recursion
MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class StructuredOutput:
    """The form of an answer.

    Args:
        kind: what `text` is; "json" is any JSON object and has no text.
        text: a JSON schema, a regular expression (the syntax of Rust's regex crate: no look-around, no
            back-references; the whole answer must match), a JSON list of texts, or a grammar in Lark's or GBNF form.
        begun: the answer begins with this text already, which stands in the prompt.
        after: the form begins after this mark; what the model says before it is free, as its reasoning.
        opening: only if this mark, if it is one token, is what the model begins with; else the form begins at once.

    Raises:
        RequestError: the text is no schema, too long, or of a kind that is not known.
    """

    kind: Kind
    text: str = ""
    begun: str = ""
    after: str = ""
    opening: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise RequestError(
                f"structured: {quote(self.kind, 40)} is not one of {', '.join(get_args(Kind))}",
                param="structured",
            )
        for name in ("text", "begun", "after", "opening"):
            _check_text(self.kind, getattr(self, name))
        size, limit = len(self.text), MAX_CHARS[self.kind]
        if size > limit:
            raise RequestError(
                f"{self.kind} has {size:,} characters, at most {limit:,} are taken", param=self.kind
            )
        if not self.text and self.kind != "json":
            raise RequestError(f"{self.kind} is empty", param=self.kind)
        if self.kind == "json_schema":
            _check_schema(_parse(self.text, "json_schema"))
        elif self.kind == "choice":
            _check_choices(_parse(self.text, "choice"))
        elif self.kind == "grammar" and (self.text.count("::=") or self.text.count(":")) > MAX_RULES:
            raise RequestError(f"grammar has more than {MAX_RULES} rules", param="grammar")

    def __str__(self) -> str:
        """The form for people, in one short line."""
        return "any JSON object" if self.kind == "json" else f"{self.kind} {quote(self.text, MAX_SHOWN)}"

    def behind(self, mark: str) -> Self:
        """The same form, which begins after a mark."""
        return replace(self, after=mark, opening="")

    def behind_any(self, opening: str, closing: str) -> Self:
        """The same form, which may have reasoning between two marks before it."""
        return replace(self, after=closing, opening=opening)

    def at_once(self) -> Self:
        """The same form, which begins with the answer."""
        return replace(self, after="", opening="")

    @classmethod
    def json_object(cls) -> Self:
        """Any JSON object."""
        return cls("json")

    @classmethod
    def json_schema(cls, schema: object) -> Self:
        """What a JSON schema describes, given as a value or as JSON text; an empty schema is any JSON object.

        Raises:
            RequestError: it is no schema.
        """
        value = _parse(schema, "json_schema") if isinstance(schema, str) else schema
        if value == {}:
            return cls.json_object()
        try:
            text = schema if isinstance(schema, str) else json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"json_schema is not JSON: {quote(str(error))}", param="json_schema") from None
        return cls("json_schema", text)

    @classmethod
    def regex(cls, pattern: str) -> Self:
        """A text that the whole pattern matches."""
        return cls("regex", pattern)

    @classmethod
    def choice(cls, texts: Sequence[str]) -> Self:
        """One of several texts."""
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise RequestError(f"choice must be a list of texts, got {quote(texts, 40)}", param="choice")
        _check_choices(list(texts))
        return cls("choice", json.dumps(list(texts), ensure_ascii=False))

    @classmethod
    def grammar(cls, text: str) -> Self:
        """A text of the language of a grammar whose first rule is `start` (Lark) or `root` (GBNF)."""
        return cls("grammar", text)


# Fields of a request by which other programs ask for a form, with what makes it of their value. vLLM has had two
# families of names.
_MAKERS: Mapping[str, Callable[[Any], StructuredOutput]] = {
    "json_schema": StructuredOutput.json_schema,
    "regex": StructuredOutput.regex,
    "choice": StructuredOutput.choice,
    "grammar": StructuredOutput.grammar,
    "guided_json": StructuredOutput.json_schema,
    "guided_regex": StructuredOutput.regex,
    "guided_choice": StructuredOutput.choice,
    "guided_grammar": StructuredOutput.grammar,
}
FORM_FIELDS = (*_MAKERS, "response_format", "structured_outputs")


def read_form(fields: Mapping[str, Any]) -> StructuredOutput | None:
    """The form that a request asks for by any of FORM_FIELDS, None if by none.

    Raises:
        RequestError: two of them are given, or one is wrong; `param` names it.
    """
    given = [name for name in FORM_FIELDS if fields.get(name) is not None]
    if not given:
        return None
    if len(given) > 1:
        raise RequestError(
            f"{given[0]} and {given[1]} are both given: an answer has one form",
            fix="keep one of them",
            param=given[1],
        )
    name, value = given[0], fields[given[0]]
    try:
        if name == "response_format":
            return _response_format(value)
        return _structured_outputs(value) if name == "structured_outputs" else _MAKERS[name](value)
    except RequestError as error:
        raise RequestError(error.what, why=error.why, fix=error.fix, param=name) from None


def response_format(form: StructuredOutput) -> dict[str, Any] | None:
    """OpenAI's response_format for a form; None for one that it has no words for."""
    if form.kind == "json":
        return {"type": "json_object"}
    if form.kind != "json_schema":
        return None
    # Not "strict": OpenAI's own server then refuses schemas that allow further properties.
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": json.loads(form.text)}}


def _response_format(value: object) -> StructuredOutput | None:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return None
    if isinstance(value, Mapping) and kind == "json_object":
        schema = value.get("schema")  # as llama.cpp takes it
        return StructuredOutput.json_object() if schema is None else StructuredOutput.json_schema(schema)
    if isinstance(value, Mapping) and kind == "json_schema":
        inner = value.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, Mapping) else None
        if schema is None:
            raise RequestError("response_format.json_schema.schema is missing")
        return StructuredOutput.json_schema(schema)
    raise RequestError(
        f"response_format.type must be text, json_object or json_schema, got {quote(value, 80)}"
    )


def _structured_outputs(value: object) -> StructuredOutput | None:
    if not isinstance(value, Mapping):
        raise RequestError(f"structured_outputs must be an object, got {quote(value, 40)}")
    names = {"json": "json_schema", "regex": "regex", "choice": "choice", "grammar": "grammar"}
    wanted = {name: item for name, item in value.items() if item not in (None, False)}
    if unknown := [name for name in wanted if name not in (*names, "json_object")]:
        raise RequestError(f"structured_outputs.{quote(unknown[0], 40)} is not supported here")
    if len(wanted) > 1:
        raise RequestError(f"structured_outputs has {len(wanted)} forms: {', '.join(wanted)}", fix="keep one")
    for name, item in wanted.items():
        return StructuredOutput.json_object() if name == "json_object" else _MAKERS[names[name]](item)
    return None


def _check_text(kind: str, text: object) -> None:
    if not isinstance(text, str):
        raise RequestError(f"{kind} must be a text, got {quote(text, 40)}", param=kind)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{kind}: character {error.start + 1} is a lone surrogate, which is no character", param=kind
        ) from None


def _parse(text: str, kind: str) -> Any:
    _check_text(kind, text)
    try:
        return strict_json.loads(text.encode("utf-8"))
    except ValueError as error:
        raise RequestError(f"{kind} is not JSON: {quote(str(error))}", param=kind) from None


def _check_choices(value: object) -> None:
    texts = value if isinstance(value, list) else []
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise RequestError(
            f"choice must be a list of texts, each of at least one character, got {quote(value, 80)}",
            param="choice",
        )


def _check_schema(schema: object) -> None:
    """Refuse what is no schema, and what would take long to compile."""
    if not isinstance(schema, dict) and schema is not True:
        raise RequestError(f"json_schema must be an object, got {quote(schema, 40)}", param="json_schema")
    parts = list(_objects(schema))
    num_references = sum("$ref" in part for part in parts)
    if num_references > MAX_RULES:
        raise RequestError(
            f"json_schema has {num_references} references, at most {MAX_RULES} are taken", param="json_schema"
        )
    patterns = [part["pattern"] for part in parts if isinstance(part.get("pattern"), str)]
    patterns += [
        key
        for part in parts
        if isinstance(part.get("patternProperties"), dict)
        for key in part["patternProperties"]
    ]
    if sum(map(len, patterns)) > MAX_PATTERN_CHARS:
        raise RequestError(
            f"json_schema has more than {MAX_PATTERN_CHARS:,} characters of patterns",
            param="json_schema",
        )


def _objects(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(inner)
