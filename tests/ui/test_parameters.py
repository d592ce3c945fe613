"""Layers of sampling parameters, and where each value comes from."""

import json

import pytest

from llmcli.errors import RequestError
from llmcli.structured import StructuredOutput
from llmcli.ui.parameters import (
    BUILT_IN,
    FLAG,
    MODEL,
    SERVER,
    SESSION,
    Parameters,
    settable_name,
    show_value,
)


def origin_of(
    parameters: Parameters, name: str, model_defaults: dict[str, object] | None
) -> tuple[object, str]:
    entry = next(entry for entry in parameters.in_force(model_defaults) if entry.name == name)
    return entry.value, entry.origin


def test_session_beats_flag_beats_model_beats_built_in() -> None:
    defaults = {"temperature": 0.6}
    assert origin_of(Parameters(), "temperature", {}) == (1.0, BUILT_IN)
    assert origin_of(Parameters(), "temperature", defaults) == (0.6, MODEL)
    parameters = Parameters({"temperature": 0.7, "top_p": None})
    assert origin_of(parameters, "temperature", defaults) == (0.7, FLAG)
    assert origin_of(parameters, "top_p", defaults) == (1.0, BUILT_IN)
    parameters.set("temperature", "0.8")
    assert origin_of(parameters, "temperature", defaults) == (0.8, SESSION)
    assert parameters.overrides == {"temperature": 0.8}


def test_default_takes_a_change_back() -> None:
    parameters = Parameters({"top_k": 5})
    parameters.set("top_k", "9")
    parameters.set("top_k", "default")
    assert parameters.overrides == {"top_k": 5}


@pytest.mark.parametrize(
    ("typed", "text", "name", "value"),
    [
        ("temp", "0.5", "temperature", 0.5),
        ("num_predict", "20", "max_tokens", 20),
        ("repeat-penalty", "1.1", "repetition_penalty", 1.1),
        ("ignore_eos", "on", "ignore_eos", True),
        ("stop", r"\nUser:", "stop", ("\nUser:",)),
        ("--seed", " 7 ", "seed", 7),
    ],
)
def test_values_are_read_by_the_kind_of_their_parameter(
    typed: str, text: str, name: str, value: object
) -> None:
    parameters = Parameters()
    assert parameters.set(typed, text) == name
    assert parameters.session == {name: value}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("temperature", "9", r"temperature must be a number in 0\.\.2, got 9"),
        ("temperature", "hot", "temperature must be a number, got hot"),
        ("temperature", "nan", "temperature must be a number"),
        ("top_k", "2.5", "top_k must be an integer, got 2.5"),
        ("ignore_eos", "maybe", "ignore_eos must be on or off"),
        ("temprature", "1", "did you mean temperature"),
        ("num_ctx", "4096", "--max-model-len"),
    ],
)
def test_a_bad_value_is_refused_and_changes_nothing(name: str, text: str, message: str) -> None:
    parameters = Parameters()
    with pytest.raises(RequestError) as caught:
        parameters.set(name, text)
    assert caught.match(message)
    assert parameters.session == {}


def test_what_was_set_in_a_saved_chat_comes_back_below_the_flags() -> None:
    parameters = Parameters({"temperature": 0.7})
    saved = {"temperature": 0.1, "top_p": 0.5, "stop": ["END"], "top_k": "many", "colour": 1}
    assert parameters.restore(saved) == ["top_k", "colour"]
    assert parameters.overrides == {"temperature": 0.7, "top_p": 0.5, "stop": ("END",)}


def test_a_bad_flag_is_refused_at_once() -> None:
    with pytest.raises(RequestError, match="top_p"):
        Parameters({"top_p": 1.5})


def test_names_with_control_characters_are_escaped() -> None:
    with pytest.raises(RequestError) as caught:
        settable_name("x\x1b[2J")
    assert "\x1b" not in str(caught.value)


def test_values_are_shown_for_people() -> None:
    assert [show_value(v) for v in (None, (), True, 0.5, 7, ("\n",))] == [
        "not set", "not set", "true", "0.5", "7", '"\\n"',
    ]  # fmt: skip


def test_a_value_that_was_not_typed_says_where_it_comes_from() -> None:
    told = {"temperature": "config.toml [defaults]", "model": "flag"}
    parameters = Parameters({"temperature": 0.7, "top_k": 5}, told)
    assert origin_of(parameters, "temperature", {"temperature": 0.1}) == (0.7, "config.toml [defaults]")
    assert origin_of(parameters, "top_k", {}) == (5, FLAG)
    parameters.set("temperature", "0.8")
    assert origin_of(parameters, "temperature", {}) == (0.8, SESSION)


def test_what_was_set_in_a_saved_chat_goes_before_files_and_the_environment() -> None:
    told = {"temperature": "config.toml [defaults]", "top_k": FLAG}
    parameters = Parameters({"temperature": 0.7, "top_k": 5}, told)
    assert parameters.restore({"temperature": 0.1, "top_k": 9}) == []
    assert parameters.overrides == {"temperature": 0.1, "top_k": 5}


def test_what_is_not_set_is_left_to_a_server_that_does_not_tell_its_defaults() -> None:
    parameters = Parameters({"top_k": 5})
    assert origin_of(parameters, "temperature", None) == (None, SERVER)
    assert origin_of(parameters, "top_k", None) == (5, FLAG)


def test_the_form_of_answers_is_saved_and_restored() -> None:
    parameters, form = Parameters({"temperature": 0.5}), StructuredOutput.regex("[a-z]+")
    parameters.set_form(form)
    saved = json.loads(json.dumps(parameters.saved()))
    assert saved == {"temperature": 0.5, "structured": {"kind": "regex", "text": "[a-z]+"}}
    other = Parameters()
    assert other.restore(saved) == []
    assert other.form == form


@pytest.mark.parametrize(
    "value", ["[a-z]+", {"kind": "regex"}, {"kind": "tag", "text": "a"}, {"kind": 5}, [1]]
)
def test_a_form_of_a_saved_chat_that_is_none_is_left_out(value: object) -> None:
    assert Parameters().restore({"structured": value}) == ["structured"]
