"""The options of `llmcli bench serve`, by the names of `vllm bench serve`: server, load, figures.

Each bundle makes the value that the job takes. Knows no HTTP; `cli/bench/serve.py` uses it.
"""

import datetime
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmcli.cli.bench.options import count_option, rate
from llmcli.cli.options import number
from llmcli.errors import UsageError, quote

if TYPE_CHECKING:
    from llmcli.jobs.bench.client import Target
    from llmcli.jobs.bench.serve import Arrivals
    from llmcli.jobs.bench.serve_metrics import Selection

SERVER, LOAD, REPORT = "Server options", "Load options", "Report options"


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where requests go."""

    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url",
            metavar="URL",
            show_default=False,
            rich_help_panel=SERVER,
            help="Address of the server; else http://HOST:PORT.",
        ),
    ] = None
    host: Annotated[str, typer.Option("--host", metavar="NAME", rich_help_panel=SERVER, help="Its host.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, count_option("--port", rich_help_panel=SERVER, help="Its port.")] = 8000
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="PATH",
            show_default=False,
            rich_help_panel=SERVER,
            help="/v1/completions or /v1/chat/completions; else that of --backend.",
        ),
    ] = None
    backend: Annotated[
        Literal["openai", "openai-chat", "vllm"],
        typer.Option("--backend", rich_help_panel=SERVER, help="Form of the requests: completions, or chat."),
    ] = "openai"
    served_model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            envvar="LLMCLI_SERVED_MODEL",
            show_default=False,
            rich_help_panel=SERVER,
            help="Name of the model at the server; else the first that it lists.",
        ),
    ] = None
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            metavar="MODEL",
            rich_help_panel=SERVER,
            help="A model here whose tokenizer makes prompts of exact lengths; else a word stands for a token.",
        ),
    ] = None
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            envvar=["LLMCLI_API_KEY", "OPENAI_API_KEY"],
            rich_help_panel=SERVER,
            help="Sent as a bearer token; better given as OPENAI_API_KEY.",
        ),
    ] = None
    ignore_eos: Annotated[
        bool,
        typer.Option(
            "--ignore-eos/--no-ignore-eos",
            rich_help_panel=SERVER,
            help="Ask the server to go on after the end of sequence, so that lengths are as asked.",
        ),
    ] = True
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature", "-t", parser=number, metavar="T", rich_help_panel=SERVER, help="0 is greedy."
        ),
    ] = 0.0

    def target(self) -> "Target":
        """Where requests go.

        Raises:
            UsageError: an address or endpoint that is none.
        """
        from llmcli.jobs.bench.client import Target

        default = "/v1/chat/completions" if self.backend == "openai-chat" else "/v1/completions"
        return Target(
            base_url=self.base_url or f"http://{self.host}:{self.port}",
            endpoint=self.endpoint or default,
            model=self.served_model,
            api_key=self.api_key,
            ignore_eos=self.ignore_eos,
            sampling={} if self.temperature is None else {"temperature": self.temperature},
        )


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """When requests are sent."""

    request_rate: Annotated[
        float,
        typer.Option(
            "--request-rate",
            parser=rate,
            metavar="RATE",
            rich_help_panel=LOAD,
            help="Requests per second; inf sends all at once.",
        ),
    ] = math.inf
    burstiness: Annotated[
        float,
        typer.Option(
            "--burstiness",
            parser=rate,
            metavar="X",
            rich_help_panel=LOAD,
            help="1 is a Poisson process, below 1 comes in bursts, above 1 is more even.",
        ),
    ] = 1.0
    max_concurrency: Annotated[
        int | None,
        count_option("--max-concurrency", rich_help_panel=LOAD, help="Most requests under way."),
    ] = None
    num_warmups: Annotated[
        int, count_option("--num-warmups", rich_help_panel=LOAD, help="Requests before the timed ones.")
    ] = 0

    def arrivals(self, seed: int) -> "Arrivals":
        """The process that sends.

        Raises:
            UsageError: a value is out of range.
        """
        from llmcli.jobs.bench.serve import Arrivals

        return Arrivals(
            request_rate=self.request_rate,
            burstiness=self.burstiness,
            max_concurrency=self.max_concurrency,
            seed=seed,
        )


@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """What is reported, and where it is kept besides --save."""

    percentile_metrics: Annotated[
        str,
        typer.Option(
            "--percentile-metrics",
            metavar="NAMES",
            rich_help_panel=REPORT,
            help="Of ttft, tpot, itl and e2el.",
        ),
    ] = "ttft,tpot,itl,e2el"
    metric_percentiles: Annotated[
        str,
        typer.Option(
            "--metric-percentiles",
            metavar="LIST",
            rich_help_panel=REPORT,
            help="Percentiles, such as 50,90,99.",
        ),
    ] = "99"
    goodput: Annotated[
        list[str] | None,
        typer.Option(
            "--goodput",
            metavar="NAME:MS",
            rich_help_panel=REPORT,
            help="Count requests that keep this limit, such as ttft:500; may be repeated.",
        ),
    ] = None
    save_result: Annotated[
        bool,
        typer.Option(
            "--save-result",
            rich_help_panel=REPORT,
            help="Keep the result, under a name that tells rate, model and time, in --result-dir.",
        ),
    ] = False
    save_detailed: Annotated[
        bool,
        typer.Option(
            "--save-detailed", rich_help_panel=REPORT, help="Also keep every request's times and every gap."
        ),
    ] = False
    result_dir: Annotated[
        Path | None,
        typer.Option("--result-dir", metavar="DIR", rich_help_panel=REPORT, help="Folder for --save-result."),
    ] = None
    result_filename: Annotated[
        str | None,
        typer.Option(
            "--result-filename", metavar="NAME", rich_help_panel=REPORT, help="Name for --save-result."
        ),
    ] = None

    def selection(self) -> "Selection":
        """The figures.

        Raises:
            UsageError: no such metric, or no such number.
        """
        from llmcli.jobs.bench.serve_metrics import Selection

        try:
            shares = tuple(float(part) for part in self.metric_percentiles.split(",") if part.strip())
        except ValueError:
            raise UsageError(
                f"--metric-percentiles must be numbers such as 50,99, got {quote(self.metric_percentiles)}"
            ) from None
        names = tuple(part.strip() for part in self.percentile_metrics.split(",") if part.strip())
        return Selection(names, shares, _limits(self.goodput or []) or None)

    def path(self, plan_name: str) -> Path | None:
        """Where --save-result puts the result; None without it.

        Raises:
            UsageError: a folder or name is given without --save-result.
        """
        if not self.save_result:
            if self.result_dir or self.result_filename:
                raise UsageError("--result-dir and --result-filename go with --save-result")
            return None
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        plain = re.sub(r"[^\w.-]+", "-", f"{plan_name}-{stamp}").strip("-")
        return (self.result_dir or Path()) / (self.result_filename or f"{plain}.json")


def _limits(texts: list[str]) -> dict[str, float]:
    """{"ttft": 500.0} of `ttft:500`; vLLM's form of several in one argument works too."""
    limits = {}
    for text in " ".join(texts).split():
        name, _, limit = text.partition(":")
        try:
            limits[name] = float(limit)
        except ValueError:
            raise UsageError(f"--goodput must be like ttft:500 (milliseconds), got {quote(text)}") from None
    return limits
