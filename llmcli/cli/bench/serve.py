"""`llmcli bench serve`: what the users of a server would have waited, with the options of `vllm bench serve`."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmcli.cli.bench.options import ResultOptions, WorkloadOptions
from llmcli.cli.bench.serve_options import FigureOptions, LoadOptions, ServerOptions
from llmcli.cli.bench.table import seconds
from llmcli.cli.listing import Column
from llmcli.cli.options import ModelOptions
from llmcli.errors import ItemsFailedError, UsageError

if TYPE_CHECKING:
    from llmcli.cli.bench.report import Report
    from llmcli.jobs.bench.client import Target
    from llmcli.jobs.bench.serve import Arrivals, ServeRun
    from llmcli.jobs.bench.serve_metrics import Selection
    from llmcli.jobs.bench.workload import Counter, Work, WorkloadPlan

TELL_EVERY_S = 2.0
KEEP_EVERY_S = 10.0  # keeping takes some ms, in which no event is read: it may cost one gap in ten seconds
MAX_SHOWN_ERRORS = 3
INCLUDED = (
    "TTFT, TPOT, ITL and E2EL as vLLM defines them, at the client: network and HTTP are in them, waiting for"
    " --max-concurrency is not"
)


def serve(
    *,
    server: ServerOptions,
    load: LoadOptions,
    workload: WorkloadOptions,
    figures: FigureOptions,
    result: ResultOptions,
    source: ModelOptions,
) -> None:
    """Send requests to a running server and measure what its users would wait: any OpenAI-compatible one.

    Options are those of vllm bench serve, figures are defined as there, and the result has its keys. One request is
    sent first to see that the server answers. Exit code 3 if requests failed, 6 if nobody answers.

    Examples:
        llmcli bench serve --base-url http://127.0.0.1:8000 --num-prompts 50 --request-rate 4
        llmcli bench serve --port 11434 --model llama3.2 --backend openai-chat --dataset prompts.jsonl
    """
    from llmcli.cli.bench.report import Report
    from llmcli.jobs.bench.serve import ServeRun

    target, selection = server.target(), figures.selection()
    arrivals, plan = load.arrivals(workload.seed), workload.plan()
    name = f"serve {plan.name}{arrivals.name}"
    if (path := figures.path(f"{name}-{server.served_model or ''}")) is not None:
        if result.save is not None:
            raise UsageError("--save and --save-result both name a file", fix="give one of them")
        result = dataclasses.replace(result, save=path)
    asked = _asked(target, arrivals, plan, selection, load.num_warmups)
    columns = _columns(selection)
    report = Report("serve", asked, result, columns, included=INCLUDED, shown=_shown, footer=_footer)
    works = _works(plan, server, source, report)  # the file's lines are checked before anything is sent
    run = ServeRun(target, works, arrivals, load.num_warmups)
    keeper = _Keeper(run, report, name, selection)

    def summary() -> dict[str, Any]:
        return keeper.summary() | (_details(run) if figures.save_detailed else {})

    with report.stoppable(summary):
        try:
            run.run(keeper.take, report.progress)
        finally:
            if run.outcomes:
                keeper.keep(final=True)
    report.close(summary=summary())
    _tell_failures(run)


def _asked(
    target: "Target", arrivals: "Arrivals", plan: "WorkloadPlan", selection: "Selection", num_warmups: int
) -> dict[str, Any]:
    """The plan as plain JSON; without the key."""
    return {
        "base_url": target.address,
        "endpoint": target.endpoint,
        "ignore_eos": target.ignore_eos,
        "sampling": dict(target.sampling),
        "workload": {**dataclasses.asdict(plan), "path": plan.path and str(plan.path)},
        "request_rate": _plain(arrivals.request_rate),
        "burstiness": _plain(arrivals.burstiness),
        "max_concurrency": arrivals.max_concurrency,
        "num_warmups": num_warmups,
        "percentiles": list(selection.percentiles),
        "goodput": selection.goodput,
    }


def _plain(value: float) -> float | str:
    return "inf" if math.isinf(value) else value


def _works(
    plan: "WorkloadPlan", server: ServerOptions, source: ModelOptions, report: "Report"
) -> "list[Work]":
    from llmcli.jobs.bench.workload import random_texts, read_dataset

    counter: Counter | None = None
    if server.tokenizer is not None:
        from llmcli.hub.models import tokenizer_folder
        from llmcli.text.tokenizer import load_tokenizer

        folder = tokenizer_folder(
            server.tokenizer, revision=source.revision, offline=source.offline, on_notice=report.notice
        )
        counter = load_tokenizer(folder)
    if plan.path is None:
        return random_texts(plan, counter)
    return read_dataset(plan, counter)


class _Keeper:
    """Turns outcomes into rows: now and then while they come, and at the end."""

    def __init__(self, run: "ServeRun", report: "Report", name: str, selection: "Selection") -> None:
        from llmcli.jobs.environment import machine

        self._run, self._report, self._name, self._selection = run, report, name, selection
        self._machine = machine()
        self._told_at = self._kept_at = 0.0

    def take(self, _: object) -> None:
        """An outcome has come."""
        now, started = self._run.ended_at, self._run.started_at
        if now - max(self._told_at, started) >= TELL_EVERY_S:
            self._told_at = now
            failed = sum(outcome.error is not None for outcome in self._run.outcomes)
            failures = f", {failed} failed" if failed else ""
            self._report.progress(f"{len(self._run.outcomes)} of {len(self._run.works)} requests{failures}")
        if now - max(self._kept_at, started) >= KEEP_EVERY_S:
            self._kept_at = now
            self.keep(final=False)

    def keep(self, *, final: bool) -> None:
        """Put the rows of what has ended into the report."""
        from llmcli.jobs.bench.serve_metrics import rows_of

        target = self._run.target
        self._report.begin({**self._machine, "model": target.model, "server": target.address})
        duration = max(self._run.duration_s, 1e-9)
        rows = rows_of(self._name, self._run.outcomes, duration, self._selection)
        self._report.put_all(rows, final=final)

    def summary(self) -> dict[str, Any]:
        from llmcli.jobs.bench.serve_metrics import metrics_of

        duration = max(self._run.duration_s, 1e-9)
        guessed = sum(not o.counted for o in self._run.outcomes if o.error is None)
        found = metrics_of(self._run.outcomes, duration, self._selection)
        return found | {"requests_counted_by_guess": guessed}


def _details(run: "ServeRun") -> dict[str, Any]:
    """Of --save-detailed: under the names of vLLM's file."""
    outcomes = run.outcomes
    return {
        "start_times": [outcome.started_at - run.started_at for outcome in outcomes],
        "input_lens": [outcome.num_prompt for outcome in outcomes],
        "output_lens": [outcome.num_output for outcome in outcomes],
        "ttfts": [outcome.ttft_s for outcome in outcomes],
        "itls": [list(outcome.itl_s) for outcome in outcomes],
        "e2els": [outcome.latency_s for outcome in outcomes],
        "errors": [outcome.error or "" for outcome in outcomes],
    }


def _tell_failures(run: "ServeRun") -> None:
    errors = [outcome.error for outcome in run.outcomes if outcome.error is not None]
    if errors:
        kinds = list(dict.fromkeys(errors))
        more = f"; and {len(kinds) - MAX_SHOWN_ERRORS} more" if len(kinds) > MAX_SHOWN_ERRORS else ""
        raise ItemsFailedError(
            f"{len(errors)} of {len(run.outcomes)} requests failed",
            why="; ".join(kinds[:MAX_SHOWN_ERRORS]) + more,
            fix="they are in no figure but the count of failures",
        )


def _columns(selection: "Selection") -> list[Column]:
    def times(title: str, key: str) -> Column:
        return Column(title, lambda row: _milliseconds(row[key]), right=True)

    shares = [(f"P{share:g}", f"p{share:g}") for share in selection.percentiles]
    pairs = [("mean", "mean"), ("median", "median"), ("sd", "std"), *shares]
    return [
        Column("ms", lambda row: row["title"]),
        *(times(title, key) for title, key in pairs),
    ]


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _shown(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each metric, from vLLM's figures."""
    from llmcli.jobs.bench.serve_metrics import METRICS, TITLES

    rows = []
    for name in METRICS:
        figures = {
            match[1]: value
            for key, value in result.items()
            if (match := re.fullmatch(rf"(\w+|p[\d.]+)_{name}_ms", key))
        }
        if figures:
            rows.append({"title": f"{TITLES[name]} ({name.upper()})", **figures})
    return rows


def _footer(result: Mapping[str, Any]) -> list[str]:
    """vLLM's totals, and what is to be known of them."""
    if "completed" not in result:
        return []
    lines = [
        f"{result['completed']} requests succeeded, {result['failed']} failed, in {seconds(result['duration'])};"
        f" at most {result['max_concurrent_requests']} at a time",
        f"{result['total_input_tokens']:,} input and {result['total_output_tokens']:,} output tokens:"
        f" {result['request_throughput']:.2f} req/s, {result['output_throughput']:.1f} output tok/s,"
        f" {result['total_token_throughput']:.1f} total tok/s,"
        f" at most {result['max_output_tokens_per_s']} events with output in a second",
    ]
    if "request_goodput" in result:
        lines.append(f"goodput: {result['request_goodput']:.2f} req/s keep every limit")
    if result["requests_counted_by_guess"]:
        lines.append(
            f"the server counted no tokens for {result['requests_counted_by_guess']} requests: an event stands for a"
            " token, a word for a token of the prompt"
        )
    return lines
