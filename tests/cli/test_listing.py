"""A listing in each of its forms, as wide as the terminal or wider."""

import json
import re
from dataclasses import dataclass

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


def test_without_rows_there_is_a_head_or_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed("auto", capsys, []) == "NAME\tWEIGHT\n"
    assert json.loads(printed("json", capsys, [])) == []
    assert printed("jsonl", capsys, []) == printed("quiet", capsys, []) == ""


def test_json_and_q_are_short_for_a_format(call: Call) -> None:
    assert call("list", "--json") == call("list", "--format", "json")
    assert call("list", "-q") == call("list", "--quiet") == call("list", "--format=quiet")
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


def test_on_a_narrow_terminal_spare_columns_go(program_env: dict[str, str]) -> None:
    program_env.pop("COLUMNS")
    lines = BOLD.sub("", on_terminal(["list"], program_env, columns=40)).splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "FITS"]
    assert max(map(len, lines)) <= 40


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
