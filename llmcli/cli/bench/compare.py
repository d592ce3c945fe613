"""`llmcli bench compare`: two results side by side, and whether the difference is more than noise."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmcli.cli.bench.options import percent
from llmcli.cli.bench.table import BAR_CELLS, bar, print_markdown, seconds, write_line
from llmcli.cli.listing import Column, print_table
from llmcli.cli.options import Json
from llmcli.errors import ItemsFailedError, UsageError, quote

if TYPE_CHECKING:
    from llmcli.jobs.bench.compare import Comparison, Pair

BAR_SPAN = 0.5  # a bar is full at a speed of 1.5, or of 0.5
METHOD = (
    "before and after are geometric means; speed is their ratio with a 95% interval: Welch's t on the logarithms of"
    " the runs (they are few and their spreads differ: a bootstrap would be too narrow); one that holds 1 is noise"
)
NOT_INDEPENDENT = (
    "requests of one run wait for each other: intervals of serve are too narrow, repeat the runs to be sure"
)


def compare(
    before: Annotated[Path, typer.Argument(metavar="A", show_default=False, help="A file of --save.")],
    after: Annotated[Path, typer.Argument(metavar="B", show_default=False, help="Another, made later.")],
    *,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw the ratios with their intervals.")
    ] = None,
    fail_if_slower: Annotated[
        float | None,
        typer.Option(
            "--fail-if-slower",
            parser=percent,
            metavar="SHARE",
            help="Exit with 3 if a test is slower by more than this, such as 5%, and it is not noise.",
        ),
    ] = None,
    force: Annotated[
        str,
        typer.Option(
            "--force", metavar="NAMES", help="Compare all the same where these differ: model, dtype, machine."
        ),
    ] = "",
    output_format: Annotated[
        Literal["human", "md", "json"],
        typer.Option("--output-format", "-o", help="What is printed on standard output."),
    ] = "human",
    as_json: Json = False,
) -> None:
    """Compare two results of llmcli bench, test by test: which are faster, which slower, which within the noise.

    Refuses results of different models, types or machines unless --force names what may differ. Without an interval
    (a test that ran once) --fail-if-slower goes by the ratio alone.

    Examples:
        llmcli bench compare before.json after.json
        llmcli bench compare before.json after.json --fail-if-slower 5% --plot change.png
    """
    from llmcli.jobs.bench.compare import compare as pair_up
    from llmcli.jobs.bench.plot import check_plot, plot_comparison
    from llmcli.jobs.bench.result import read_result

    if plot is not None:
        check_plot(plot)
    if as_json and output_format == "md":
        raise UsageError("--json and --output-format md are two forms", fix="give one")
    results = read_result(before), read_result(after)
    names = str(before), str(after)
    given = [name.strip() for name in force.split(",") if name.strip()]
    comparison = pair_up(*results, names=names, force=given)
    if as_json or output_format == "json":
        print(json.dumps(_as_json(comparison, names), ensure_ascii=False), flush=True)
    elif output_format == "md":
        print_markdown(COLUMNS, [_row(pair) for pair in comparison.pairs])
    else:
        _print(comparison, names, is_serve=results[0].get("kind") == "serve")
    if plot is not None:
        plot_comparison(comparison, (before.name, after.name), plot)
    if fail_if_slower is not None:
        _fail(comparison.pairs, fail_if_slower)


def _fail(pairs: "Sequence[Pair]", tolerance: float) -> None:
    slower = [pair for pair in pairs if pair.is_slower(tolerance)]
    if slower:
        worst = min(slower, key=lambda pair: pair.speed.value if pair.speed else 1.0)
        assert worst.speed is not None
        raise ItemsFailedError(
            f"{len(slower)} of {len(pairs)} tests are slower by more than {tolerance:.1%}",
            why=f"the most: {quote(worst.before.test)}, {1 - worst.speed.value:.1%} slower",
        )


def _value(row: dict[str, Any], side: str) -> str:
    value = row[side]
    if value is None:
        return ""
    return seconds(value) if row["unit"] == "s" else f"{value:.2f} {row['unit']}"


def _interval(row: dict[str, Any]) -> str:
    return "" if row["low"] is None else f"{row['low']:.3f} .. {row['high']:.3f}"


COLUMNS = (
    Column("test", lambda row: row["test"]),
    Column("batch", lambda row: "" if row["batch"] is None else str(row["batch"]), right=True),
    Column("before", lambda row: _value(dict(row), "before"), right=True),
    Column("after", lambda row: _value(dict(row), "after"), right=True),
    Column("speed", lambda row: "" if row["speed"] is None else f"{row['speed']:.3f}", right=True),
    Column("95% interval", lambda row: _interval(dict(row)), right=True),
    Column("", lambda row: row["verdict"]),
)


def _row(pair: "Pair") -> dict[str, Any]:
    from llmcli.jobs.bench.stats import geometric_mean

    speed = pair.speed
    return {
        "test": pair.before.test,
        "batch": pair.before.batch,
        "unit": pair.before.unit,
        "before": geometric_mean(pair.before.samples),
        "after": geometric_mean(pair.after.samples),
        "runs_before": len(pair.before.samples),
        "runs_after": len(pair.after.samples),
        "speed": speed.value if speed else None,
        "low": speed.low if speed else None,
        "high": speed.high if speed else None,
        "verdict": pair.verdict,
    }


def _as_json(comparison: "Comparison", names: tuple[str, str]) -> dict[str, Any]:
    return {
        "before": names[0],
        "after": names[1],
        "method": METHOD,
        "differences": list(comparison.differences),
        "only_before": list(comparison.only_before),
        "only_after": list(comparison.only_after),
        "tests": [_row(pair) for pair in comparison.pairs],
    }


def _print(comparison: "Comparison", names: tuple[str, str], *, is_serve: bool) -> None:
    from llmcli.ui.console import stdout_console

    console = stdout_console()
    write_line(console, f"before: {names[0]}")
    write_line(console, f"after:  {names[1]}")
    for difference in comparison.differences:
        write_line(console, f"differs: {difference}")
    shown = Column("slower | faster", lambda row: _bar(row["speed"]))
    print_table([_row(pair) for pair in comparison.pairs], (*COLUMNS, shown))
    for label, tests in (("before", comparison.only_before), ("after", comparison.only_after)):
        if tests:
            write_line(console, f"only in {label}: {', '.join(tests)}")
    write_line(console, _verdict(comparison))
    write_line(console, METHOD)
    if is_serve:
        write_line(console, NOT_INDEPENDENT)


def _bar(speed: float | None) -> str:
    """A bar to the right of the middle for what is faster, to its left for what is slower."""
    if speed is None:
        return ""
    half = BAR_CELLS // 2
    drawn = bar(abs(speed - 1) / BAR_SPAN, half)
    left, right = ("", drawn) if speed >= 1 else (drawn[:1] * len(drawn), "")
    return f"{left:>{half}}|{right:<{half}}"


def _verdict(comparison: "Comparison") -> str:
    counts: dict[str, int] = {}
    for pair in comparison.pairs:
        counts[pair.verdict] = counts.get(pair.verdict, 0) + 1
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    if set(counts) <= {"within the noise"}:
        return f"no difference: {told}"
    return told
