"""The nearest known name to a mistyped one."""

import pytest

from llmcli.nearest import did_you_mean, nearest

KNOWN = ["temperature", "top_p", "TheBloke/Llama-2-7B-AWQ"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("temprature", "temperature"),
        ("TOP_P", "top_p"),
        ("thebloke/llama-2-7b-awq", "TheBloke/Llama-2-7B-AWQ"),
    ],
)
def test_a_mistyped_name_finds_the_one_that_was_meant_as_it_is_spelled(typed: str, meant: str) -> None:
    assert nearest(typed, KNOWN) == [meant]


def test_what_is_like_nothing_finds_nothing() -> None:
    assert nearest("zzz", KNOWN) == []
    assert did_you_mean("zzz", KNOWN) == ""
    assert nearest("x", []) == []


def test_the_most_alike_come_first_and_no_more_than_asked_for() -> None:
    assert nearest("top_p", ["top_k", "top_p", "top"], 2) == ["top_p", "top_k"]


def test_the_sentence_is_ready_to_print() -> None:
    assert did_you_mean("temprature", KNOWN, "/") == "did you mean /temperature?"
