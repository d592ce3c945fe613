"""`llmcli bench throughput`: requests and tokens per second, with the options of `vllm bench throughput`."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from llmcli.cli.bench.options import ResultOptions, WorkloadOptions, count_option
from llmcli.cli.bench.table import seconds, spread
from llmcli.cli.listing import Column
from llmcli.cli.options import EngineOptions, ModelArgument, ModelOptions
from llmcli.config import human_bytes
from llmcli.errors import UsageError

if TYPE_CHECKING:
    from llmcli.hub.models import LocalModel
    from llmcli.jobs.bench.workload import Work, WorkloadPlan

INCLUDED = (
    "all requests are there from the start; the times hold scheduling, the forward pass, greedy sampling and"
    " detokenizing, not tokenizing; prompts found in the prefix cache count as processed"
)
COLUMNS = (
    Column("test", lambda row: row["test"]),
    Column("rate", spread, right=True),
    Column("unit", lambda row: row["unit"]),
)


def throughput(
    model: ModelArgument = None,
    *,
    workload: WorkloadOptions,
    repeats: Annotated[
        int,
        count_option("--repeats", "-r", help="Runs of the whole; compare needs two or more for an interval."),
    ] = 1,
    result: ResultOptions,
    source: ModelOptions,
    engine: EngineOptions,
) -> None:
    """Measure how many requests and tokens per second the engine gets through, all requests given at once.

    Options are those of vllm bench throughput, and the file of --save (or --output-json) has its keys.

    Examples:
        llmcli bench throughput --num-prompts 50 --input-len 128 --output-len 64
        llmcli bench throughput TheBloke/Llama-2-7b-Chat-AWQ --dataset prompts.jsonl
    """
    from llmcli.cli.bench.load import find_model, load_engine, peaks
    from llmcli.cli.bench.report import Report
    from llmcli.jobs.bench.throughput import ThroughputRun, check_works

    plan = workload.plan()
    if repeats < 1:
        raise UsageError(f"--repeats must be at least 1, got {repeats}")
    config = engine.config()
    asked = {**dataclasses.asdict(plan), "path": plan.path and str(plan.path), "repeats": repeats}
    report = Report("throughput", asked, result, COLUMNS, included=INCLUDED, footer=_footer)
    found = find_model(model, source, config, report)
    works = _works(found, plan)
    run: ThroughputRun | None = None

    def summary() -> dict[str, Any]:
        assert run is not None
        stats = run.engine.stats()
        share = stats.prefix_hits / stats.prefix_queries if stats.prefix_queries else 0.0
        return {**run.summary(), "prefix_hit_share": share, **peaks(run.engine)}

    with report.stoppable(summary):
        built = load_engine(found, config, lambda resolved: check_works(works, resolved), report)
        run = ThroughputRun(built, works, f"throughput {plan.name}", repeats)
        try:
            for rows in run.run(report.progress):
                report.put_all(rows, final=len(run.done) == repeats)
        except KeyboardInterrupt:
            report.put_all(run.rows(), final=False)
            raise
    report.close(summary=summary())


def _works(found: "LocalModel", plan: "WorkloadPlan") -> "list[Work]":
    """The requests as token ids, before weights are read."""
    from llmcli.jobs.bench.workload import encode, random_ids, read_dataset
    from llmcli.model.spec import read_model_spec
    from llmcli.text.tokenizer import load_tokenizer

    if plan.path is None:
        return random_ids(plan, read_model_spec(found.path).vocab_size)
    tokenizer = load_tokenizer(found.path)
    return encode(read_dataset(plan, tokenizer), tokenizer)


def _footer(result: Mapping[str, Any]) -> list[str]:
    if "elapsed_time" not in result:
        return []
    return [
        f"{result['num_requests']} requests in {seconds(result['elapsed_time'])}:"
        f" {result['total_prompt_tokens']:,} prompt tokens"
        f" ({result['prefix_hit_share']:.0%} found in the prefix cache),"
        f" {result['total_output_tokens']:,} output tokens",
        f"peak memory {human_bytes(result['peak_memory_bytes'])}",
    ]
