"""The grammar of hub ids."""

import pytest

from llmcli.errors import UsageError
from llmcli.hub.names import HubId, parse_hub_id

NOT_IDS = [
    "",
    "gpt2",
    "../../etc",
    "a/b/c",
    "-x",
    "-x/y",
    "a//b",
    "a/",
    "/a",
    "a/..",
    "a/b..c",
    "a/b--c",
    ".a/b",
    "a/.b",
    "a/b.",
    "a/b.git",
    "a/b\0",
    "a/b\n",
    "a b/c",
    "a\\b/c",
    "a/" + "b" * 300,
    "mеta/llama",  # the second letter is Cyrillic
    "ａ/b",  # full width
    "a/b?c",
    "http://a/b",
]


@pytest.mark.parametrize("text", NOT_IDS)
def test_what_is_not_owner_and_name_is_a_usage_error_in_printable_text(text):
    with pytest.raises(UsageError, match="not owner/name or an existing folder") as caught:
        parse_hub_id(text)
    assert all(char.isprintable() or char == "\n" for char in str(caught.value))
    assert len(caught.value.what) < 300


@pytest.mark.parametrize("text", ["TheBloke/Llama-2-7B-Chat-AWQ", "a/b", "01-ai/Yi-1.5_6B", "_a/b_"])
def test_ids_of_the_hub_are_read(text):
    assert parse_hub_id(text) == HubId(text)


@pytest.mark.parametrize(
    "revision", ["main", "v1.0", "refs/pr/7", "0123456789abcdef0123456789abcdef01234567"]
)
def test_a_revision_comes_from_the_name_or_apart(revision):
    assert parse_hub_id(f"a/b@{revision}") == HubId("a/b", revision) == parse_hub_id("a/b", revision)


@pytest.mark.parametrize(
    "revision", ["", "../main", "a//b", "/main", "-x", "main/", "a\0", "x" * 201, "a b", "a.lock"]
)
def test_an_impossible_revision_is_a_usage_error(revision):
    with pytest.raises(UsageError, match="is not a branch, tag or commit"):
        parse_hub_id(f"a/b@{revision}")


def test_two_different_revisions_are_a_usage_error():
    with pytest.raises(UsageError, match="two revisions"):
        parse_hub_id("a/b@main", "v1")


def test_only_a_full_commit_is_a_commit():
    assert HubId("a/b", "0" * 40).is_commit
    assert not any(HubId("a/b", revision).is_commit for revision in (None, "main", "0" * 39, "G" * 40))
