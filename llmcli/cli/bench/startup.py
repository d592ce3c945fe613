"""`llmcli bench startup`: from an empty process to the first token, cold and warm."""

import dataclasses
import os
from typing import Annotated

from llmcli.cli.bench.options import ResultOptions, count_option
from llmcli.cli.bench.table import second_spread, seconds
from llmcli.cli.listing import Column
from llmcli.cli.options import EngineOptions, ModelArgument, ModelOptions

INCLUDED = (
    "every start is a new process; cold: the model's files are dropped from the page cache and kernels are compiled"
    " anew, while Python's and torch's own files stay cached"
)
COLUMNS = (
    Column("test", lambda row: row["test"]),
    Column("mean", second_spread, right=True),
    Column("min", lambda row: seconds(row["min"]), right=True),
    Column("max", lambda row: seconds(row["max"]), right=True),
)


def startup(
    model: ModelArgument = None,
    *,
    num_iters_cold: Annotated[int, count_option("--num-iters-cold", help="Cold starts.")] = 3,
    num_iters_warmup: Annotated[
        int, count_option("--num-iters-warmup", help="Starts before the warm ones that do not count.")
    ] = 1,
    num_iters_warm: Annotated[int, count_option("--num-iters-warm", help="Warm starts.")] = 5,
    result: ResultOptions,
    source: ModelOptions,
    engine: EngineOptions,
) -> None:
    """Time the start of llmcli with a model, phase by phase: program, torch, config, weights, first token.

    Examples:
        llmcli bench startup
        llmcli bench startup TheBloke/Llama-2-7b-Chat-AWQ --num-iters-cold 1 --num-iters-warm 2
    """
    from llmcli.cli.bench.load import find_model, plan_of
    from llmcli.cli.bench.report import Report, warn
    from llmcli.jobs.bench.startup import Starter, StartupPlan, run_startup

    plan = StartupPlan(
        num_iters_cold=num_iters_cold, num_iters_warmup=num_iters_warmup, num_iters_warm=num_iters_warm
    )
    config = engine.config()
    report = Report("startup", dataclasses.asdict(plan), result, COLUMNS, included=INCLUDED)
    found = find_model(model, source, config, report)
    plan_of(found, config)  # a model that can not run here is told before a process is started
    fields = dataclasses.asdict(found) | {"path": str(found.path.absolute())}
    starter = Starter(fields, config, dict(os.environ))
    told: set[str] = set()
    counts = {"cold": num_iters_cold, "warm": num_iters_warm}
    with report.stoppable():
        for start, rows in run_startup(starter, plan, report.progress):
            if start.notice and start.notice not in told:
                told.add(start.notice)
                warn(start.notice)
            report.begin(start.environment)
            kind = rows[0].test.split()[0]
            report.put_all(rows, final=len(rows[0].samples) == counts[kind])
    report.close()
