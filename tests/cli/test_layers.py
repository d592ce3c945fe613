"""Configuration files: what counts for a command and a model, and what is wrong in a file."""

import itertools
import sys
from pathlib import Path

import pytest

from llmcli.cli.layers import MAX_BYTES, canonical, in_force, read_file
from llmcli.errors import UsageError

SECTIONS = (
    "[defaults]\ntemperature = 1",
    "[run]\ntemperature = 2",
    '[models."*"]\ntemperature = 3',
    '[models."org/*"]\ntemperature = 4',
    '[models."org/name"]\ntemperature = 5',
)


def values(text: str, folder: Path, command: str | None, model: str | None) -> dict[str, object]:
    """The values in force from a file with this text."""
    path = folder / "config.toml"
    path.write_text(text)
    return {key: setting.value for key, setting in in_force([read_file(path)], command, model).items()}


@pytest.mark.parametrize(
    ("command", "model", "wanted"),
    [
        ("chat", None, 1),
        ("run", None, 2),
        ("chat", "x/y", 3),
        ("run", "x/y", 3),
        ("chat", "org/other", 4),
        ("chat", "org/name", 5),
        ("chat", "org/name@main", 5),
    ],
)
def test_the_more_specific_section_wins_wherever_it_stands(
    command: str, model: str | None, wanted: int, tmp_path: Path
) -> None:
    for order in itertools.permutations(SECTIONS):
        assert values("\n".join(order), tmp_path, command, model) == {"temperature": wanted}


def test_the_pattern_with_more_letters_is_the_more_specific(tmp_path: Path) -> None:
    text = '[models."*-AWQ"]\nseed = 1\n[models."TheBloke/*-AWQ"]\nseed = 2\n[models."*"]\nseed = 3'
    assert values(text, tmp_path, "chat", "TheBloke/x-AWQ") == {"seed": 2}
    assert values(text, tmp_path, "chat", "ada/x-AWQ") == {"seed": 1}


def test_keys_above_the_sections_are_defaults(tmp_path: Path) -> None:
    assert values("seed = 1\n[defaults]\ntop-k = 2", tmp_path, None, None) == {"seed": 1, "top-k": 2}


def test_a_later_layer_wins_whatever_its_section(tmp_path: Path) -> None:
    user, project = tmp_path / "user.toml", tmp_path / "project.toml"
    user.write_text('[models."org/name"]\nseed = 1\ntop-k = 1')
    project.write_text("[defaults]\nseed = 2")
    chosen = in_force([read_file(user), read_file(project)], "chat", "org/name")
    assert {key: setting.value for key, setting in chosen.items()} == {"seed": 2, "top-k": 1}
    assert chosen["seed"].origin == f"{project} [defaults]"
    assert chosen["top-k"].origin == f'{user} [models."org/name"]'


@pytest.mark.parametrize("name", ["max-tokens", "max_tokens", "n-predict", "num_predict", "--max-tokens"])
def test_a_key_may_be_written_as_the_option_may(name: str) -> None:
    assert canonical(name) == "max-tokens"


def test_no_file_has_no_settings(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name in ("none", "folder", "file/below", "file"):
        assert read_file(tmp_path / name) == []


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 1")
    assert [setting.key for setting in read_file(path)] == ["seed"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"seed = 1\ntemperature = \n", "line 2"),
        (b"seed = 1\nseed = 2", "line 2"),
        (b"max-tokens = 1\n[defaults]\nmax_tokens = 2", "max-tokens is set twice in"),
        (b"[run]\nn-predict = 1\nmax-tokens = 2", "[run]"),
        (b"\xff", "is not UTF-8 text: byte 0 is 0xff"),
        (b"[models]\nseed = 1", "[models] holds no values"),
        (b"x = " + b"[" * (sys.getrecursionlimit() * 10), "is not TOML"),
        (b"x = " + b"9" * 5000, "is not TOML"),
        (b"#" * (MAX_BYTES + 1), "is larger than"),
        (b"x = '\x1b[2J", "is not TOML"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_file_that_can_not_be_read_is_told_with_its_name_and_the_place(
    data: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(data)
    with pytest.raises(UsageError) as raised:
        read_file(path)
    assert said in str(raised.value)
    assert "config.toml" in str(raised.value)
    assert "\x1b" not in str(raised.value)
