"""The form of an answer: what is taken, under which names, and what is refused with which words."""

import json
from typing import Any

import pytest

from llmcli.errors import RequestError
from llmcli.sampling import SamplingParams
from llmcli.structured import FORM_FIELDS, StructuredOutput, read_form, response_format

SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}}
TEXT = json.dumps(SCHEMA)


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"json_schema": SCHEMA}, "json_schema", TEXT),
        ({"json_schema": TEXT}, "json_schema", TEXT),
        ({"json_schema": {}}, "json", ""),
        ({"json_schema": True}, "json_schema", "true"),
        ({"guided_json": SCHEMA}, "json_schema", TEXT),
        ({"structured_outputs": {"json": SCHEMA}}, "json_schema", TEXT),
        ({"structured_outputs": {"json_object": True}}, "json", ""),
        ({"structured_outputs": {"regex": "a+", "choice": None}}, "regex", "a+"),
        ({"structured_outputs": {"choice": ["a", "b"]}}, "choice", '["a", "b"]'),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, "grammar", 'root ::= "a"'),
        ({"regex": "a+"}, "regex", "a+"),
        ({"guided_regex": "a+", "regex": None}, "regex", "a+"),
        ({"choice": ["ä"]}, "choice", '["ä"]'),
        ({"grammar": 'start: "a"'}, "grammar", 'start: "a"'),
        ({"response_format": {"type": "json_object"}}, "json", ""),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, "json_schema", TEXT),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
            "json_schema",
            TEXT,
        ),
    ],
    ids=str,
)
def test_a_form_is_read_under_every_name_that_people_use(
    fields: dict[str, Any], kind: str, text: str
) -> None:
    form = read_form(fields)
    assert form is not None
    assert (form.kind, form.text) == (kind, text)


@pytest.mark.parametrize(
    "fields", [{}, {"regex": None}, {"response_format": {"type": "text"}}, {"prompt": "a"}]
)
def test_fields_that_ask_for_no_form_give_none(fields: dict[str, Any]) -> None:
    assert read_form(fields) is None


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"json_schema": "{"}, "json_schema", "json_schema is not JSON: column 2"),
        ({"json_schema": [1]}, "json_schema", "json_schema must be an object, got [1]"),
        ({"json_schema": "false"}, "json_schema", "json_schema must be an object, got False"),
        ({"json_schema": '{"a": 1, "a": 2}'}, "json_schema", "duplicate key"),
        ({"json_schema": "[" * 1000}, "json_schema", "nesting deeper than 64"),
        ({"json_schema": {"title": "x" * 70_000}}, "json_schema", "at most 65,536 are taken"),
        (
            {"json_schema": {"pattern": "x" * 9000}},
            "json_schema",
            "json_schema has more than 8,192 characters of patterns",
        ),
        ({"json_schema": {"patternProperties": {"x" * 9000: {}}}}, "json_schema", "more than 8,192"),
        ({"json_schema": {"allOf": [{"$ref": "#"}] * 501}}, "json_schema", "501 references, at most 500"),
        ({"regex": ""}, "regex", "regex is empty"),
        ({"regex": 5}, "regex", "regex must be a text, got 5"),
        ({"regex": "a" * 9000}, "regex", "regex has 9,000 characters, at most 8,192 are taken"),
        ({"regex": "\ud800"}, "regex", "character 1 is a lone surrogate"),
        ({"choice": []}, "choice", "choice must be a list of texts"),
        ({"choice": "yes"}, "choice", "choice must be a list of texts, got yes"),
        ({"choice": ["a", ""]}, "choice", "each of at least one character"),
        ({"grammar": "a: b\n" * 501}, "grammar", "more than 500 rules"),
        ({"regex": "a", "choice": ["a"]}, "choice", "regex and choice are both given"),
        ({"regex": "a", "response_format": {"type": "text"}}, "response_format", "are both given"),
        (
            {"response_format": "json"},
            "response_format",
            "must be text, json_object or json_schema, got json",
        ),
        ({"response_format": {"type": "xml"}}, "response_format", "must be text, json_object or json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema.schema is missing"),
        (
            {"structured_outputs": {"structural_tag": "x"}},
            "structured_outputs",
            "structural_tag is not supported",
        ),
        (
            {"structured_outputs": {"regex": "a", "json": {}}},
            "structured_outputs",
            "has 2 forms: regex, json",
        ),
        ({"structured_outputs": []}, "structured_outputs", "must be an object, got []"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_form_is_refused_with_its_name(fields: dict[str, Any], param: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_form(fields)
    assert said in caught.value.what
    assert caught.value.param == param


@pytest.mark.parametrize("name", [name for name in FORM_FIELDS if "choice" not in name])
def test_a_message_shows_little_of_a_large_value(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_form({name: ["x" * 60_000]})
    assert len(str(caught.value)) < 400


def test_openai_has_words_for_json_and_for_nothing_else() -> None:
    assert response_format(StructuredOutput.json_object()) == {"type": "json_object"}
    body = response_format(StructuredOutput.json_schema(SCHEMA))
    assert body is not None
    assert read_form({"response_format": body}) == StructuredOutput.json_schema(SCHEMA)
    for form in (
        StructuredOutput.regex("a"),
        StructuredOutput.choice(["a"]),
        StructuredOutput.grammar("a: b"),
    ):
        assert response_format(form) is None


def test_sampling_parameters_take_a_form_and_nothing_else() -> None:
    form = StructuredOutput.regex("a")
    assert SamplingParams(structured=form).structured == form
    with pytest.raises(RequestError, match="structured must be a StructuredOutput"):
        SamplingParams(structured={"type": "object"})  # type: ignore[arg-type]


def test_a_form_is_a_value_and_says_what_it_is() -> None:
    assert StructuredOutput.choice(["a"]) == StructuredOutput.choice(("a",))
    assert len({StructuredOutput.regex("a"), StructuredOutput.regex("a"), StructuredOutput.regex("b")}) == 2
    assert str(StructuredOutput.json_object()) == "any JSON object"
    assert str(StructuredOutput.regex("[a-z]\n")) == "regex [a-z]\\n"
    assert len(str(StructuredOutput.regex("a" * 5000))) < 80
