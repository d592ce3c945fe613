"""Lists, ranges and shares on bench's command lines, and the table they end in."""

from typing import Any

import pytest
import typer

from llmcli.cli.bench.options import ResultOptions, numbers, percent, rate
from llmcli.cli.bench.table import bar, print_markdown, second_spread, seconds, spread
from llmcli.cli.listing import Column
from llmcli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512", (512,)),
        ("1,8,32", (1, 8, 32)),
        (" 1 , 2 ", (1, 2)),
        ("1k,1K", (1000, 1024)),
        ("1-4", (1, 2, 3, 4)),
        ("128-512+128", (128, 256, 384, 512)),
        ("1-32*2", (1, 2, 4, 8, 16, 32)),
        ("1-5*3,7", (1, 3, 7)),
        ("0-2", (0, 1, 2)),
        ("5-4", ()),
        ("2,2,1", (2, 1)),
        ("", ()),
        ((3, 4), (3, 4)),
    ],
)
def test_lists_and_ranges_are_those_of_llama_bench(text: Any, expected: tuple[int, ...]) -> None:
    assert numbers(text) == expected


@pytest.mark.parametrize("text", ["x", "1-", "-4", "1-4*1", "0-4*2", "1-4+0", "1.5", "1-99999999", "1--4"])
def test_what_is_no_list_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="must be numbers such as") as caught:
        numbers(text)
    assert f"got {text}" in str(caught.value)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("0", 0.0), ("12.5%", 0.125)])
def test_shares_are_percent_or_plain(text: str, share: float) -> None:
    assert percent(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "x", "100%", "5", "-1%", "nan"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="must be a share such as"):
        percent(text)


def test_rates_are_above_zero_and_may_be_infinite() -> None:
    assert (rate("2.5"), rate("inf")) == (2.5, float("inf"))
    for text in ("0", "-1", "nan", "x"):
        with pytest.raises(typer.BadParameter):
            rate(text)


def test_json_is_short_for_one_form_and_contradicts_the_others() -> None:
    assert ResultOptions(as_json=True).form == "json"
    assert ResultOptions(output_format="md").form == "md"
    with pytest.raises(UsageError, match="are two forms"):
        _ = ResultOptions(as_json=True, output_format="md").form


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 µs"),
        (0.0000784, "78 µs"),
        (0.0123, "12.30 ms"),
        (0.1234, "123.4 ms"),
        (1.5, "1.50 s"),
        (123.45, "123.5 s"),
        (4321.0, "4321 s"),
        (None, ""),
    ],
)
def test_times_are_shown_with_a_unit_that_suits_them(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_a_spread_is_shown_where_there_is_more_than_one_run() -> None:
    row = {"mean": 12.345, "stdev": 0.5, "samples": [1, 2]}
    assert spread(row) == "12.35 ± 0.50" or spread(row) == "12.34 ± 0.50"
    assert spread(row | {"samples": [1]}) in ("12.35", "12.34")
    assert spread(row | {"mean": 23456.7, "stdev": 12.3}) == "23457 ± 12"
    assert second_spread({"mean": 1.5, "stdev": 0.01, "samples": [1, 2]}) == "1.50 s ± 10.00 ms"


COLUMNS = (
    Column("name", lambda row: row["name"]),
    Column("number", lambda row: row["number"], right=True),
)
ROWS = [{"name": "short", "number": "1"}, {"name": "a\x1b[2Jb|c", "number": "1234567"}]


def test_a_bar_of_markdown_does_not_end_a_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_markdown(COLUMNS, ROWS)
    assert capsys.readouterr().out.splitlines() == [
        "| name | number |",
        "| --- | ---: |",
        "| short | 1 |",
        r"| a\x1b[2Jb\|c | 1234567 |",
    ]


def test_bars_are_as_long_as_their_share() -> None:
    assert [bar(share, 4) for share in (0.0, 0.5, 0.53125, 1.0, 7.0)] == ["", "██", "██▏", "████", "████"]
