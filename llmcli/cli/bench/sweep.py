"""`llmcli bench sweep`: lengths, batch sizes and engine options in all combinations, in batched-bench's columns."""

import dataclasses
import gc
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcli.cli.bench.options import ResultOptions, Seed, count_option, list_option
from llmcli.cli.bench.table import bar
from llmcli.cli.listing import Column
from llmcli.cli.options import EngineOptions, ModelArgument, ModelOptions
from llmcli.config import EngineConfig

if TYPE_CHECKING:
    from llmcli.cli.bench.report import Report
    from llmcli.hub.models import LocalModel
    from llmcli.jobs.bench.sweep import SweepPlan


def _number(name: str) -> Column:
    return Column(name, lambda row: str(row[name]), right=True)


def _figure(name: str, unit: str) -> Column:
    digits = 3 if unit == "s" else 2
    return Column(
        f"{name} {unit}", lambda row: "" if row[name] is None else f"{row[name]:.{digits}f}", right=True
    )


COLUMNS = (
    Column("engine", lambda row: row["engine"]),
    *map(_number, ("PP", "TG", "B", "N_KV")),
    _figure("T_PP", "s"),
    _figure("S_PP", "t/s"),
    _figure("T_TG", "s"),
    _figure("S_TG", "t/s"),
    _figure("T", "s"),
    _figure("S", "t/s"),
    Column("S_TG", lambda row: bar(row["bar"])),
)


def sweep(
    model: ModelArgument = None,
    *,
    input_len: Annotated[Any, list_option("--input-len", "-p", help="Tokens of each prompt.")] = "128",
    output_len: Annotated[Any, list_option("--output-len", "-n", help="Tokens of each answer.")] = "128",
    batch_size: Annotated[Any, list_option("--batch-size", "-b", help="Sequences at once.")] = "1-8*2",
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="NAME=A,B",
            help="Values of an engine option, such as threads=1,2; may be repeated. Each gets an engine of its own.",
        ),
    ] = None,
    repeats: Annotated[int, count_option("--repeats", "-r", help="Runs of each combination.")] = 1,
    seed: Seed = 0,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.png", help="Draw generation speed over the batch size."),
    ] = None,
    result: ResultOptions,
    source: ModelOptions,
    engine: EngineOptions,
) -> None:
    """Measure prompts and generation over lists of lengths, batch sizes and engine options.

    For each combination: PP and TG (tokens of a prompt and of its answer), B (sequences), N_KV (tokens in the cache at
    the end), then seconds and tokens per second of the prompts (T_PP, S_PP), of the generation (T_TG, S_TG) and of
    both (T, S), as llama.cpp's batched-bench has them. Every LIST takes commas and ranges.

    Examples:
        llmcli bench sweep -p 128,512 -n 64 -b 1-16*2 --plot sweep.png
        llmcli bench sweep --vary threads=1,2,4 --vary kv-cache-dtype=auto,int8 -b 8
    """
    from llmcli.cli.bench.load import find_model, plan_of, with_room
    from llmcli.cli.bench.report import Report
    from llmcli.jobs.bench.engine import INCLUDED
    from llmcli.jobs.bench.plot import check_plot, plot_sweep
    from llmcli.jobs.bench.sweep import SweepPlan, variants_of

    plan = SweepPlan(
        input_lens=input_len,
        output_lens=output_len,
        batch_sizes=batch_size,
        variants=variants_of(vary or []),
        repeats=repeats,
        seed=seed,
    )
    if plot is not None:
        check_plot(plot)
    config = with_room(engine.config(), max(plan.batch_sizes))
    configs = [dataclasses.replace(config, **variant) for variant in plan.variants]
    report = Report("sweep", dataclasses.asdict(plan), result, COLUMNS, included=INCLUDED, shown=_shown)
    found = find_model(model, source, configs[0], report)
    with report.stoppable():
        for each in configs:
            plan.check_fits(plan_of(found, each))
        for variant, each in zip(plan.variants, configs, strict=True):
            _measure(found, plan, each, variant, report)
    report.close()
    if plot is not None:  # last: what was measured is printed and kept, whatever becomes of the picture
        plot_sweep([row.as_json() for row in report.rows], f"{found.name}: generation", plot)
        report.notice(f"drawn in {plot}")


def _measure(
    found: "LocalModel", plan: "SweepPlan", config: EngineConfig, variant: Mapping[str, Any], report: "Report"
) -> None:
    """One engine with one variant; its memory is free again for the next one."""
    from llmcli.cli.bench.load import load_engine
    from llmcli.jobs.bench.quick import release_gpu_cache
    from llmcli.jobs.bench.sweep import name_of, run_sweep

    if variant:
        report.notice(f"an engine with {name_of(variant)}")
    engine = load_engine(found, config, plan.check_fits, report)
    for row in run_sweep(engine, plan, variant, report.progress):
        report.put(row, final=len(row.samples) == plan.repeats)
    engine.close()
    del engine
    gc.collect()
    release_gpu_cache()


def _shown(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows, each with the name of its engine and the length of its bar."""
    from llmcli.jobs.bench.sweep import name_of

    most = max((row["S_TG"] or 0.0 for row in result["tests"]), default=0.0) or 1.0
    return [
        {**row, "engine": name_of(row["variant"]) or "as given", "bar": (row["S_TG"] or 0.0) / most}
        for row in result["tests"]
    ]
