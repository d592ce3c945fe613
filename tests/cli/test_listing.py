"""A listing in each of its forms, as wide as the terminal or wider."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from llmcli.cli.listing import Column, Form, print_listing
from tests.cli.conftest import Call
from tests.cli.terminal import on_terminal


@dataclass(frozen=True, slots=True)
class Fruit:
    name: str
    weight: int | None
    colours: tuple[str, ...] = ()


BOLD = re.compile(r"\x1b\[\d*m")
ROWS = [Fruit("apple", 1500, ("red",)), Fruit("梨\x1b[2J\t", None)]
COLUMNS = (
    Column("NAME", lambda row: row.name),
    Column("WEIGHT", lambda row: None if row.weight is None else f"{row.weight:,} g"),
)
WITH_SPARE = (
    COLUMNS[0],
    replace(COLUMNS[1], spare=1),
    Column("COLOURS", lambda row: " ".join(row.colours), spare=2),
    Column("RIPE", lambda row: "yes"),
)
OnScreen = Callable[[list[Fruit], int], list[str]]


@pytest.fixture
def on_screen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> OnScreen:
    """The lines of a table with spare columns on a terminal of some width."""

    def show(rows: list[Fruit], width: int) -> list[str]:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(width))
        print_listing(rows, WITH_SPARE, "auto")
        return [line.rstrip() for line in BOLD.sub("", capsys.readouterr().out).splitlines()]

    return show


def printed(form: Form, capsys: pytest.CaptureFixture[str], rows: list[object] = ROWS) -> str:
    print_listing(rows, COLUMNS, form)
    return capsys.readouterr().out


def test_away_from_a_terminal_it_is_plain_text_with_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed("auto", capsys) == "NAME\tWEIGHT\napple\t1,500 g\n梨\\x1b[2J\\t\t-\n"


def test_json_has_every_value_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed("json", capsys)) == [
        {"name": "apple", "weight": 1500, "colours": ["red"]},
        {"name": "梨\x1b[2J\t", "weight": None, "colours": []},
    ]


def test_jsonl_is_one_row_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed("jsonl", capsys).splitlines()
    assert [json.loads(line)["name"] for line in lines] == [row.name for row in ROWS]


def test_quiet_is_the_first_column_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed("quiet", capsys) == "apple\n梨\\x1b[2J\\t\n"


def test_columns_for_people_are_aligned_by_the_width_of_their_letters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows: list[object] = [Fruit("apple", 1), Fruit("梨", 20)]
    assert printed("human", capsys, rows) == "NAME   WEIGHT\napple  1 g\n梨     20 g\n"


def test_numbers_stand_at_the_right_if_they_are_to(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[object] = [Fruit("apple", 1), Fruit("梨", 20)]
    print_listing(
        rows, (COLUMNS[0], replace(COLUMNS[1], right=True), replace(COLUMNS[0], right=True)), "human"
    )
    assert capsys.readouterr().out == ("NAME   WEIGHT   NAME\napple     1 g  apple\n梨       20 g     梨\n")


def test_without_rows_there_is_a_head_or_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed("auto", capsys, []) == "NAME\tWEIGHT\n"
    assert json.loads(printed("json", capsys, [])) == []
    assert printed("jsonl", capsys, []) == printed("quiet", capsys, []) == ""


def test_json_and_q_are_short_for_a_format(call: Call) -> None:
    show = (
        "config",
        "show",
        "--all",
    )  # of models the time of the last access would be in it, which reading them changes
    assert call(*show, "--json") == call(*show, "--format", "json")
    assert call(*show, "-q") == call(*show, "--quiet") == call(*show, "--format=quiet")
    code, out, err = call("list", "--json", "-q")
    assert (code, out) == (2, "")
    assert "--format is given 2 times (--json, --quiet, -q are short for it)" in err


def test_the_short_forms_are_in_the_help(call: Call) -> None:
    _, out, _ = call("list", "--help")
    assert "--format auto|human|json|jsonl|quiet" in out
    assert "--json" in out
    assert "-q or --quiet" in " ".join(out.split())


def test_on_a_terminal_it_is_a_table(program_env: dict[str, str]) -> None:
    screen = on_terminal(["config", "show", "--all", "--origin"], program_env, columns=100)
    head, *lines = BOLD.sub("", screen).splitlines()
    place = head.index("ORIGIN")
    assert {line[place - 1 : place + 1] for line in lines} == {" b", " e"}  # built-in, environment variable


def test_models_are_listed_with_less_of_each_where_the_terminal_is_narrow(
    program_env: dict[str, str],
) -> None:
    program_env.pop("COLUMNS")

    def first_words(columns: int) -> list[list[str]]:
        screen = BOLD.sub("", on_terminal(["list"], program_env, columns=columns))
        assert max(map(len, screen.splitlines())) <= columns
        return [line.split() for line in screen.splitlines()]

    titles = ["NAME", "QUANT", "SIZE", "PARAMS", "CTX", "FITS", "MODIFIED", "ACCESSED"]
    assert first_words(120)[0] == titles
    assert first_words(40)[0] == ["NAME", "SIZE", "FITS"]
    assert [words[0] for words in first_words(32)] == titles


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (28, ["NAME", "WEIGHT", "COLOURS", "RIPE"]),
        (27, ["NAME", "COLOURS", "RIPE"]),
        (20, ["NAME", "COLOURS", "RIPE"]),
        (19, ["NAME", "RIPE"]),
        (11, ["NAME", "RIPE"]),
    ],
)
def test_as_many_spare_columns_are_left_out_as_must_go(
    width: int, titles: list[str], on_screen: OnScreen
) -> None:
    lines = on_screen([Fruit("apple", 15, ("red",))], width)
    assert lines[0].split() == titles
    assert max(map(len, lines)) <= width


def test_what_is_too_wide_without_them_too_is_a_block_of_lines_for_each_row(on_screen: OnScreen) -> None:
    assert on_screen([Fruit("apple", 15, ("red",)), Fruit("fig", None)], 10) == [
        "NAME     apple",
        "WEIGHT   15 g",
        "COLOURS  red",
        "RIPE     yes",
        "",
        "NAME     fig",
        "WEIGHT   -",
        "COLOURS",
        "RIPE     yes",
    ]


def test_where_no_column_is_spare_each_row_is_a_block(program_env: dict[str, str]) -> None:
    program_env.pop("COLUMNS")
    screen = BOLD.sub("", on_terminal(["config", "show", "--all", "--origin"], program_env, columns=40))
    heads = [line.split()[:1] for line in screen.splitlines()]
    assert heads[:8] == [["KEY"], ["VALUE"], ["ORIGIN"], [], ["KEY"], ["VALUE"], ["ORIGIN"], []]


def test_rows_may_be_mappings(capsys: pytest.CaptureFixture[str]) -> None:
    columns = (Column("KEY", lambda row: row["key"]),)
    print_listing([{"key": "a", "value": 1}], columns, "jsonl", key="key")
    print_listing([{"key": "a", "value": 1}], columns, "quiet", key="key")
    assert capsys.readouterr().out == '{"key": "a", "value": 1}\na\n'
