"""`llmcli bench [MODEL]`: the quick table. Its other forms are commands of their own, in this folder."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcli.cli.bench.options import ResultOptions, Seed, count_option, list_option
from llmcli.cli.bench.table import seconds, spread
from llmcli.cli.listing import Column
from llmcli.cli.options import EngineOptions, ModelArgument, ModelOptions
from llmcli.config import human_bytes
from llmcli.errors import UsageError, quote

if TYPE_CHECKING:
    from llmcli.cli.bench.report import Report
    from llmcli.engine.engine import Engine

PromptTokens = Annotated[
    Any, list_option("--prompt-tokens", "-p", help="Lengths of the prompts that are timed; 0 is none.")
]
OutputTokens = Annotated[
    Any, list_option("--output-tokens", "-n", help="Tokens that each sequence generates; 0 is none.")
]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--pg", "-pg", metavar="P,N", help="Also time a prompt and its answer together; may be repeated."
    ),
]
Depths = Annotated[
    Any, list_option("--depth", "-d", help="Tokens that are in the context before a test begins.")
]
Batches = Annotated[Any, list_option("--batch", "-b", help="Sequences that generate at once.")]
Repeats = Annotated[int, count_option("--repeats", "-r", help="Runs of each test.")]


def bench(
    model: ModelArgument = None,
    *,
    prompt_tokens: PromptTokens = "512",
    output_tokens: OutputTokens = "128",
    pairs: Pairs = None,
    depth: Depths = "0",
    batch: Batches = "1,8,32",
    repeats: Repeats = 5,
    seed: Seed = 0,
    result: ResultOptions,
    source: ModelOptions,
    engine: EngineOptions,
) -> None:
    """Measure tokens per second. Its other forms: bench latency, throughput, serve, startup, sweep and compare.

    Every LIST takes commas and ranges: 1,8,32 or 1-32*2 or 128-512+128. Prompts are random, sampling is greedy and
    ends of sequences are ignored. The roofline is the memory's read bandwidth, measured here: a step can not be
    faster than reading the weights. See llmcli bench latency --help and so on for the other forms.

    Examples:
        llmcli bench
        llmcli bench TheBloke/Llama-2-7b-Chat-AWQ -p 512,2k -n 128 -b 1-32*2 --save before.json
        llmcli bench ./my-model -n 64 -d 0,4k -o md
        llmcli bench compare before.json after.json
    """
    from llmcli.cli.bench.load import find_model, load_engine, with_room
    from llmcli.cli.bench.report import Report
    from llmcli.jobs.bench.engine import INCLUDED
    from llmcli.jobs.bench.quick import BenchPlan, run_bench

    plan = BenchPlan(
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        pairs=_parse_pairs(pairs or []),
        depths=depth,
        batches=batch,
        repeats=repeats,
        seed=seed,
    )
    config = with_room(engine.config(), max(plan.batches))
    report = Report("quick", dataclasses.asdict(plan), result, COLUMNS, included=INCLUDED, footer=_footer)
    found = find_model(model, source, config, report)
    with report.stoppable():
        built = load_engine(found, config, plan.check_fits, report)
        for row in run_bench(built, plan, report.progress):
            report.put(row, final=len(row.samples) == plan.repeats)
        summary = _against_the_memory(built, report)
    report.close(summary=summary)


def _parse_pairs(texts: list[str]) -> tuple[tuple[int, int], ...]:
    from llmcli.cli.bench.options import numbers

    pairs = []
    for text in texts:
        lengths = [numbers(part) for part in text.split(",")]
        if len(lengths) != 2 or any(len(each) != 1 for each in lengths):
            raise UsageError(f"-pg takes two lengths, such as 512,128, got {quote(text)}")
        pairs.append((lengths[0][0], lengths[1][0]))
    return tuple(pairs)


def _against_the_memory(engine: "Engine", report: "Report") -> dict[str, Any]:
    """Put the rows' share of the roofline in, and return what was measured for it."""
    from llmcli.cli.bench.load import peaks
    from llmcli.jobs.bench import quick as job

    memory = peaks(engine)  # taken first: reading the memory needs some that the model does not
    report.progress("measuring the memory's read bandwidth")
    bandwidth = job.read_bandwidth(engine.config.num_threads, engine.config.device)
    for row in report.rows:
        rate = row.details["weight_bytes_per_s"]
        share = None if rate is None else rate / bandwidth
        report.amend(dataclasses.replace(row, details={**row.details, "roofline_share": share}))
    return {
        "read_bandwidth_bytes_per_s": bandwidth,
        "weight_bytes_per_step": job.bytes_per_step(engine),
        **memory,
    }


def _share(row: Mapping[str, Any]) -> str:
    share = row.get("roofline_share")
    return "" if share is None else f"{share:.0%}"


def _weights(row: Mapping[str, Any]) -> str:
    rate = row["weight_bytes_per_s"]
    return "" if rate is None else f"{rate / 1e9:.1f} GB/s"


COLUMNS = (
    Column("test", lambda row: row["test"]),
    Column("batch", lambda row: str(row["batch"]), right=True),
    Column("t/s", spread, right=True),
    Column("TTFT", lambda row: seconds(row["ttft_s"]), right=True),
    Column("weights", _weights, right=True),
    Column("roofline", _share, right=True),
)


def _footer(result: Mapping[str, Any]) -> list[str]:
    if "read_bandwidth_bytes_per_s" not in result:
        return []
    on_gpu = result["peak_gpu_memory_bytes"]
    memory = human_bytes(result["peak_memory_bytes"])
    lines = [
        f"read bandwidth {result['read_bandwidth_bytes_per_s'] / 1e9:.1f} GB/s, peak memory {memory}"
        + ("" if on_gpu is None else f", on the GPU {human_bytes(on_gpu)}")
    ]
    shares = [test.get("roofline_share") or 0.0 for test in result["tests"]]
    if max(shares, default=0.0) > 1:
        lines.append(
            "above 100%: the weights are small enough to stay in a cache, and are not read from memory"
        )
    return lines
