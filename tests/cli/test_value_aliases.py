"""Options with a value that stand for switches of ours."""

import pytest

from llmcli.cli.value_aliases import replace_value_aliases
from llmcli.errors import UsageError

THINK = {"--think", "--no-think"}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--reasoning", "on", "hi"], ["--think", "hi"]),
        (["hi", "--reasoning=off"], ["hi", "--no-think"]),
        (["--reasoning", "auto", "hi"], ["hi"]),
        (["--", "--reasoning", "on"], ["--", "--reasoning", "on"]),
        (["--temperature=1", "on"], ["--temperature=1", "on"]),
    ],
)
def test_a_value_becomes_the_switch_that_says_the_same(typed: list[str], meant: list[str]) -> None:
    assert list(replace_value_aliases(typed, THINK)) == meant


def test_a_command_without_the_switch_does_not_know_the_alias_either() -> None:
    assert list(replace_value_aliases(["--reasoning", "on"], {"--temperature"})) == ["--reasoning", "on"]


@pytest.mark.parametrize("typed", [["--reasoning"], ["--reasoning", "yes"], ["--reasoning="]])
def test_another_value_is_told(typed: list[str]) -> None:
    with pytest.raises(UsageError, match="--reasoning takes on, off, auto, got"):
        list(replace_value_aliases(typed, THINK))
