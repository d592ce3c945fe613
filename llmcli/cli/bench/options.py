"""Options that several forms of `llmcli bench` take, declared once: lists of numbers, results, workloads.

Names are llama-bench's for the quick table and those of `vllm bench` for the subcommands. Knows no benchmark;
`cli/bench*.py` use it. Imports nothing heavy.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmcli.cli.options import Json, Quiet, human_number, integer, number
from llmcli.config import parse_number
from llmcli.errors import UsageError, quote

if TYPE_CHECKING:
    from llmcli.jobs.bench.workload import WorkloadPlan

MAX_NUMBERS = 1000
_RANGE = re.compile(r"([^-+*]+)-([^-+*]+)(?:([+*])([^-+*]+))?")
FORMS = ("human", "md", "csv", "json", "jsonl")


def numbers(text: Any) -> tuple[int, ...]:
    """Parse a list with ranges, as llama-bench has them: `512,1k`, `1-4`, `128-512+128`, `1-32*2`."""
    if isinstance(text, tuple):  # Typer hands a default that is parsed already through the parser too
        return text
    found: list[int] = []
    try:
        for part in str(text).split(","):
            if part.strip():
                found += _expand(part.strip())
    except ValueError as error:
        raise typer.BadParameter(
            f"must be numbers such as 512,1k or a range such as 1-32*2 or 128-512+128, got {quote(text)}"
            + (f": {error}" if str(error) in _REASONS else "")
        ) from None
    return tuple(dict.fromkeys(found))


_REASONS = ("it never ends", f"more than {MAX_NUMBERS} numbers")


def _expand(part: str) -> list[int]:
    match = _RANGE.fullmatch(part)
    if match is None:
        return [parse_number(part)]
    first, last = parse_number(match[1]), parse_number(match[2])
    by = parse_number(match[4]) if match[4] else 1
    if (match[3] == "*" and (by < 2 or first == 0)) or by == 0:
        raise ValueError(_REASONS[0])
    found = []
    while first <= last:
        found.append(first)
        first = first * by if match[3] == "*" else first + by
        if len(found) > MAX_NUMBERS:
            raise ValueError(_REASONS[1])
    return found


def percent(text: Any) -> float:
    """Parse 5% or 0.05 into 0.05, or raise a BadParameter."""
    plain = str(text).strip()
    try:
        value = float(plain[:-1]) / 100 if plain.endswith("%") else float(plain)
        if not 0 <= value < 1:
            raise ValueError
    except ValueError:
        raise typer.BadParameter(
            f"must be a share such as 5% or 0.05, at least 0 and below 100%, got {quote(text)}"
        ) from None
    return value


def rate(text: Any) -> float:
    """Parse a number above 0, or inf."""
    value = number(str(text))
    if math.isnan(value) or value <= 0:
        raise typer.BadParameter(f"must be above 0, or inf, got {quote(text)}")
    return value


def count_option(*names: str, help: str, **more: Any) -> Any:
    """An option that takes a whole number, human ones too."""
    return typer.Option(*names, parser=human_number, metavar="N", help=help, **more)


def list_option(*names: str, help: str, **more: Any) -> Any:
    """An option that takes a list of numbers with ranges."""
    return typer.Option(*names, parser=numbers, metavar="LIST", help=help, **more)


Seed = Annotated[
    int,
    typer.Option("--seed", parser=integer, metavar="N", help="Of the prompts, and of the times of sending."),
]
Save = Annotated[
    Path | None,
    typer.Option(
        "--save",
        metavar="FILE",
        help="Keep the result in this file as it comes: JSON, or a line for each test if it ends in .jsonl.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file of --save if it exists.")]
OutputFormat = Annotated[
    Literal["human", "md", "csv", "json", "jsonl"],
    typer.Option("--output-format", "-o", help="What is printed on standard output."),
]


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """What becomes of the result."""

    output_format: OutputFormat = "human"
    save: Save = None
    overwrite: Overwrite = False
    as_json: Json = False
    quiet: Quiet = False

    @property
    def form(self) -> str:
        """One of FORMS.

        Raises:
            UsageError: two are asked for.
        """
        if self.as_json and self.output_format not in ("human", "json"):
            raise UsageError(f"--json and --output-format {self.output_format} are two forms", fix="give one")
        return "json" if self.as_json else self.output_format


DatasetName = Annotated[
    Literal["random", "sharegpt", "custom"] | None,
    typer.Option(
        "--dataset-name",
        show_default=False,
        help="random, sharegpt (a JSON file of conversations) or custom (lines as llmcli run takes them).",
    ),
]
DatasetPath = Annotated[
    Path | None, typer.Option("--dataset-path", metavar="FILE", help="File of --dataset-name.")
]
Dataset = Annotated[
    Path | None,
    typer.Option(
        "--dataset",
        metavar="FILE",
        help="Prompts to send, in the lines that llmcli run takes; short for --dataset-name custom.",
    ),
]
NumPrompts = Annotated[
    int | None,
    count_option("--num-prompts", help="Requests; else 100 random ones, or all of the dataset."),
]
InputLen = Annotated[int | None, count_option("--input-len", help="Tokens of a random prompt; else 512.")]
OutputLen = Annotated[
    int | None, count_option("--output-len", help="Tokens of each answer; else 128, or the dataset's.")
]
RangeRatio = Annotated[
    float,
    typer.Option(
        "--random-range-ratio",
        parser=number,
        metavar="SHARE",
        help="Random lengths lie this share around theirs.",
    ),
]
PrefixLen = Annotated[
    int, count_option("--random-prefix-len", help="Tokens that all random prompts begin with.")
]


@dataclass(frozen=True, kw_only=True)
class WorkloadOptions:
    """Which prompts; see `jobs.bench_workload.WorkloadPlan`."""

    dataset_name: DatasetName = None
    dataset_path: DatasetPath = None
    dataset: Dataset = None
    num_prompts: NumPrompts = None
    input_len: InputLen = None
    output_len: OutputLen = None
    random_range_ratio: RangeRatio = 0.0
    random_prefix_len: PrefixLen = 0
    seed: Seed = 0

    def plan(self) -> "WorkloadPlan":
        """The WorkloadPlan.

        Raises:
            UsageError: options contradict each other, or a value is out of range.
        """
        from llmcli.jobs.bench import workload as job

        if self.dataset is not None and (self.dataset_path or self.dataset_name not in (None, "custom")):
            raise UsageError(
                "--dataset is short for --dataset-name custom --dataset-path FILE", fix="give one of the two"
            )
        path = self.dataset or self.dataset_path
        name = self.dataset_name or ("random" if path is None else "custom")
        random = name == "random"
        if not random and self.input_len is not None:
            raise UsageError("--input-len is for random prompts", fix="leave it out beside a dataset")
        defaults = (job.DEFAULT_NUM_PROMPTS, job.DEFAULT_INPUT_LEN, job.DEFAULT_OUTPUT_LEN)
        given = (self.num_prompts, self.input_len, self.output_len)
        num_prompts, input_len, output_len = (
            default if value is None and random else value
            for value, default in zip(given, defaults, strict=True)
        )
        return job.WorkloadPlan(
            dataset=name,
            path=path,
            num_prompts=num_prompts,
            input_len=input_len,
            output_len=output_len,
            range_ratio=self.random_range_ratio,
            prefix_len=self.random_prefix_len,
            seed=self.seed,
        )
