"""`--filter` and `--sort` of `llmcli list`."""

from dataclasses import dataclass

import pytest

from llmcli.cli.list_filter import Order, parse_filter, parse_order, select
from llmcli.errors import UsageError

NOW = 1_000_000_000.0
DAY = 86_400


@dataclass(frozen=True)
class Model:
    """A row with the fields that filters know."""

    name: str = "ada/model"
    quantization: str = "awq 4-bit"
    size: int = 4_000_000_000
    parameters: int | None = 7_000_000_000
    context: int | None = 8192
    fits: bool | None = True
    modified: float = NOW - 10 * DAY
    accessed: float = NOW - DAY


@pytest.mark.parametrize(
    ("expression", "passes"),
    [
        ("size>3.9GB", True),
        ("size>4GB", False),
        ("size>=4gb", True),
        ("size<3.8GiB", True),
        ("size > 0.001TB", True),
        ("size>4000000001", False),
        ("params=7B", True),
        ("params<7000M", False),
        ("ctx>=8K", True),
        ("ctx>8K", False),
        ("fits=yes", True),
        ("fits!=yes", False),
        ("modified>9d", True),
        ("modified>2w", False),
        ("accessed<36h", True),
        ("name=ADA/*", True),
        ("name!=ada/*", False),
        ("quant=awq*", True),
        ("quant=bfloat16", False),
    ],
)
def test_a_filter_keeps_what_it_says(expression, passes):
    assert (select([Model()], [parse_filter(expression)], None, NOW) != []) is passes


def test_what_is_not_known_passes_no_comparison():
    unknown = Model(parameters=None, context=None, fits=None)
    for expression in ("params>0", "params<9B", "ctx!=5", "fits=yes", "fits=no"):
        assert select([unknown], [parse_filter(expression)], None, NOW) == []


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("size", "is not KEY, an operator and a value"),
        ("", "is not KEY, an operator and a value"),
        ("sise>4GB", "did you mean size?"),
        ("colour=red", "keys: name, quant, size"),
        ("size>big", "big is not a number such as 4GB"),
        ("size>4XB", "4XB is not a number"),
        ("accessed>30", "30 is not a time"),
        ("fits=maybe", "maybe is not yes or no"),
        ("name>a", "name takes = or !=, got >"),
    ],
)
def test_a_wrong_filter_is_told_with_what_would_do(expression, told):
    with pytest.raises(UsageError) as caught:
        parse_filter(expression)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("name", Order("name", False)),
        ("name:desc", Order("name", True)),
        ("size", Order("size", True)),
        ("SIZE:asc", Order("size", False)),
        ("params", Order("parameters", True)),
    ],
)
def test_names_rise_and_all_else_falls_unless_told(text, order):
    assert parse_order(text) == order


@pytest.mark.parametrize(("text", "told"), [("age", "there is no key age"), ("size:up", "asc or desc")])
def test_a_wrong_order_is_told(text, told):
    with pytest.raises(UsageError, match=told):
        parse_order(text)


def test_rows_are_sorted_and_those_without_a_value_come_last():
    rows = [Model("b", parameters=1), Model("C", parameters=None), Model("a", parameters=2)]
    assert [row.name for row in select(rows, [], parse_order("params"), NOW)] == ["a", "b", "C"]
    assert [row.name for row in select(rows, [], parse_order("params:asc"), NOW)] == ["b", "a", "C"]
    assert [row.name for row in select(rows, [], parse_order("name"), NOW)] == ["a", "b", "C"]
