"""Errors carry what, why and a fix, an exit code each, and never raw text of a stranger."""

import pytest

from llmcli import errors
from llmcli.errors import LLMCliError, RequestError, quote

EXIT_CODES = {
    "LLMCliError": 1,
    "EngineError": 1,
    "OutputError": 1,
    "UsageError": 2,
    "RequestError": 2,
    "ContextFullError": 2,
    "MissingExtraError": 2,
    "DeviceUnavailableError": 2,
    "ItemsFailedError": 3,
    "ModelUnavailableError": 4,
    "ModelNotFoundError": 4,
    "GatedModelError": 4,
    "OfflineError": 4,
    "ModelNotRunnableError": 5,
    "UnsupportedModelError": 5,
    "CheckpointError": 5,
    "DoesNotFitError": 5,
    "ServerError": 6,
}


def all_errors() -> dict[str, type[LLMCliError]]:
    found = [value for value in vars(errors).values() if isinstance(value, type)]
    return {cls.__name__: cls for cls in found if issubclass(cls, LLMCliError)}


def test_every_error_has_the_exit_code_of_its_branch() -> None:
    assert {name: cls.exit_code for name, cls in all_errors().items()} == EXIT_CODES


def test_the_tree_at_the_top_of_the_module_shows_every_error_with_its_code() -> None:
    lines = (
        line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()
        for line in errors.__doc__.split("\n")
    )
    drawn = {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
    assert drawn == EXIT_CODES


def test_an_error_reads_as_what_why_and_fix() -> None:
    assert (
        str(LLMCliError("broken", why="worn out", fix="buy a new one")) == "broken\nworn out\nbuy a new one"
    )
    assert str(LLMCliError("broken", fix="buy a new one")) == "broken\nbuy a new one"
    assert str(LLMCliError("broken")) == "broken"


def test_a_request_error_names_its_field_and_is_a_value_error() -> None:
    error = RequestError("bad", param="top_p")
    assert error.param == "top_p"
    assert isinstance(error, ValueError)


SHOWN: list[tuple[object, str]] = [
    ("plain text, é and 漢", "plain text, é and 漢"),
    ("a\x1b[2Jb\n\t\x7f\x9b", r"a\x1b[2Jb\n\t\x7f\x9b"),
    ("right\u202eleft", r"right\u202eleft"),
    ("lone \ud800", r"lone \ud800"),
    ("\U000e0001", r"\U000e0001"),
    (5, "5"),
    (None, "None"),
    (["\x1b"], r"['\x1b']"),
    ("x" * 200, "x" * 200),
    ("x" * 201, "x" * 199 + "…"),
]


@pytest.mark.parametrize(("value", "text"), SHOWN)
def test_untrusted_values_are_shown_escaped_and_short(value: object, text: str) -> None:
    assert quote(value) == text


def test_the_limit_of_a_shown_value_can_be_chosen() -> None:
    assert quote("abcdef", 4) == "abc…"
    assert len(quote("\x1b" * 100, 50)) == 50
