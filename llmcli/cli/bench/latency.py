"""`llmcli bench latency`: how long one batch takes, with the options of `vllm bench latency`."""

import dataclasses
from typing import Annotated

from llmcli.cli.bench.options import ResultOptions, Seed, count_option
from llmcli.cli.bench.table import second_spread, seconds
from llmcli.cli.listing import Column
from llmcli.cli.options import EngineOptions, ModelArgument, ModelOptions


def _percentile(share: int) -> Column:
    return Column(f"p{share}", lambda row: seconds(row["percentiles"][str(share)]), right=True)


COLUMNS = (
    Column("test", lambda row: row["test"]),
    Column("batch", lambda row: str(row["batch"]), right=True),
    Column("latency", second_spread, right=True),
    Column("TTFT", lambda row: seconds(row["ttft_s"]), right=True),
    *(_percentile(share) for share in (10, 25, 50, 75, 90, 99)),
)


def latency(
    model: ModelArgument = None,
    *,
    input_len: Annotated[int, count_option("--input-len", help="Tokens of each prompt.")] = 32,
    output_len: Annotated[int, count_option("--output-len", help="Tokens of each answer.")] = 128,
    batch_size: Annotated[int, count_option("--batch-size", "-b", help="Sequences at once.")] = 8,
    num_iters_warmup: Annotated[
        int, count_option("--num-iters-warmup", help="Iterations before the timed ones.")
    ] = 10,
    num_iters: Annotated[int, count_option("--num-iters", help="Timed iterations.")] = 30,
    seed: Seed = 0,
    result: ResultOptions,
    source: ModelOptions,
    engine: EngineOptions,
) -> None:
    """Time one batch of requests from its start to its last token, again and again.

    Options and defaults are those of vllm bench latency, and the file of --save (or --output-json) has its keys.

    Examples:
        llmcli bench latency --num-iters 10
        llmcli bench latency TheBloke/Llama-2-7b-Chat-AWQ --input-len 512 --output-len 64 --batch-size 1
    """
    from llmcli.cli.bench.load import find_model, load_engine, peaks, with_room
    from llmcli.cli.bench.report import Report
    from llmcli.jobs.bench.engine import INCLUDED
    from llmcli.jobs.bench.latency import LatencyPlan, run_latency, summary

    plan = LatencyPlan(
        input_len=input_len,
        output_len=output_len,
        batch_size=batch_size,
        num_iters_warmup=num_iters_warmup,
        num_iters=num_iters,
        seed=seed,
    )
    config = with_room(engine.config(), batch_size)
    report = Report("latency", dataclasses.asdict(plan), result, COLUMNS, included=INCLUDED)
    found = find_model(model, source, config, report)
    with report.stoppable():
        built = load_engine(found, config, plan.check_fits, report)
        for row in run_latency(built, plan, report.progress):
            report.put(row, final=len(row.samples) == num_iters)
    report.close(summary=peaks(built) | dict(summary(report.rows[0])))
