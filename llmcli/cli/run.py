"""`llmcli run`: a file of prompts through the engine, many at once, into a file of results.

Puts the parts of `jobs/batch*.py` together and turns Ctrl-C into a stop. What can be wrong with the
options, the input and the output is found before the model is loaded. Imports nothing heavy; `cli/app.py`
calls it.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmcli.cli.options import (
    EngineOptions,
    ModelOption,
    ModelOptions,
    OutputPath,
    Quiet,
    SamplingOptions,
    System,
)
from llmcli.cli.report import INTERRUPTED
from llmcli.errors import ItemsFailedError, UsageError, quote

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine
    from llmcli.hub.models import LocalModel
    from llmcli.jobs.batch import BatchOptions, StopSignal
    from llmcli.jobs.batch_input import PromptFile, Validation
    from llmcli.jobs.batch_output import RecordWriter
    from llmcli.jobs.batch_progress import BatchCounts, BatchProgress
    from llmcli.jobs.batch_requests import LineRules

INFLIGHT_PER_SEQ = 4

Input = Annotated[
    str | None,
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help="Prompts: a .jsonl file, a .txt file with one prompt per line, or - for standard input.",
    ),
]
Raw = Annotated[
    bool | None,
    typer.Option(
        "--raw/--chat",
        show_default=False,
        help="Send text prompts as they are, or through the model's chat template; else as the model allows.",
    ),
]
OutputFormat = Annotated[
    Literal["auto", "native", "openai", "text"],
    typer.Option(
        "--format",
        help="Form of the results; auto answers OpenAI batch lines in OpenAI's form, text keeps the order.",
    ),
]
Null = Annotated[
    bool,
    typer.Option("--null", "-0", help="With --format text: end each answer with NUL instead of a newline."),
]
MaxInflight = Annotated[
    int | None,
    typer.Option(
        "--max-inflight",
        metavar="N",
        min=1,
        show_default=False,
        help="Most requests in the engine, waiting ones included; else 4 times --max-num-seqs.",
    ),
]
Ordered = Annotated[bool, typer.Option("--ordered", help="Write results in the order of the input.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it exists.")]
SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Write error records for bad lines and run the others.")
]
ReturnTokenIds = Annotated[
    bool, typer.Option("--return-token-ids", help="Add the token ids of each answer to its record.")
]


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """What is written, and how."""

    output: OutputPath = None
    format: OutputFormat = "auto"
    null: Null = False
    ordered: Ordered = False
    overwrite: Overwrite = False
    return_token_ids: ReturnTokenIds = False

    @property
    def path(self) -> str:
        return "-" if self.output is None else str(self.output)


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """How prompts are taken."""

    raw: Raw = None
    system: System = None
    skip_invalid: SkipInvalid = False


def run(
    source: Input = None,
    model: ModelOption = None,
    *,
    results: ResultOptions,
    prompts: PromptOptions,
    max_inflight: MaxInflight = None,
    quiet: Quiet = False,
    hub: ModelOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
) -> None:
    """Answer every prompt of a file, many at once.

    Lines are {"prompt": "..."}, {"messages": [...]}, {"prompt_token_ids": [...]} or OpenAI batch requests,
    with any sampling field. Each result is written as soon as it is there. For a conversation: llmcli chat.

    Examples:
        llmcli run prompts.jsonl -m TheBloke/Llama-2-7B-Chat-AWQ -o answers.jsonl
        llmcli run prompts.txt --format text --max-tokens 64
        cat prompts.jsonl | llmcli run - | jq -r .text
    """
    from llmcli.jobs.batch import BatchOptions
    from llmcli.jobs.batch_input import PromptFile, file_status
    from llmcli.jobs.batch_output import check_output
    from llmcli.jobs.batch_progress import BatchProgress
    from llmcli.jobs.batch_records import RecordStyle
    from llmcli.jobs.batch_requests import LineRules
    from llmcli.ui.console import stderr_console

    config, flags = engine.config(), sampling.overrides()
    if results.null and results.format != "text":
        raise UsageError("--null goes with --format text")
    if prompts.raw and prompts.system:
        raise UsageError(
            "--system needs the chat template, and --raw goes without it", fix="give one of the two"
        )
    to_terminal = results.path == "-" and sys.stdout.isatty()
    options = BatchOptions(
        sampling=flags,
        max_inflight=max_inflight or INFLIGHT_PER_SEQ * config.max_num_seqs,
        ordered=results.ordered or results.format == "text",
        style=RecordStyle(
            format=results.format,
            token_ids=results.return_token_ids,
            separator=b"\0" if results.null else b"\n",
            for_terminal=to_terminal,
        ),
    )
    rules = LineRules(models=_model_names(model), sampling=flags, raw=prompts.raw)
    progress = BatchProgress(stderr_console(), quiet=quiet, results_here=to_terminal)
    with PromptFile.open(_input_name(source), sys.stdin.buffer) as file:
        stdout = file_status(sys.stdout.buffer)
        check_output(results.path, file.status, overwrite=results.overwrite, stdout=stdout)
        validation = file.validate(rules)
        if not prompts.skip_invalid:
            validation.check(file.name)
        job = BatchJob(file, validation, rules, prompts, results, options, progress)
        if validation.num_requests == 0:
            with closing(job.open_output()):
                progress.say(f"0 requests in {quote(file.name)}")
            return

        from llmcli.cli.verdict import before_download
        from llmcli.hub.models import resolve_model

        found = resolve_model(
            model,
            revision=hub.revision,
            offline=hub.offline,
            on_notice=progress.say,
            before_fetch=before_download(config, progress.say),
        )

        from llmcli.engine.build import build_engine  # torch: only once the model is here

        built = build_engine(found, config, on_phase=progress.say, on_warning=progress.say)
        with closing(built):
            job.serve(built, found)


@dataclass(frozen=True)
class BatchJob:
    """A validated prompt file with all that is needed to serve it but the engine."""

    file: "PromptFile"
    validation: "Validation"
    rules: "LineRules"
    prompts: PromptOptions
    results: ResultOptions
    options: "BatchOptions"
    progress: "BatchProgress"

    def open_output(self) -> "RecordWriter":
        """Create the output file, or take standard output."""
        from llmcli.jobs.batch_output import RecordWriter

        return RecordWriter.open(self.results.path, sys.stdout.buffer, overwrite=self.results.overwrite)

    def serve(self, engine: "Engine", model: "LocalModel") -> None:
        """Run every request.

        Raises:
            ItemsFailedError: all are done, and some have failed.
            typer.Exit: with 130, interrupted.
        """
        from llmcli.jobs.batch import BatchRun, StopSignal
        from llmcli.jobs.batch_progress import BatchCounts
        from llmcli.jobs.batch_prompts import PromptEncoder

        encoder = PromptEncoder(engine.tokenizer, raw=self.prompts.raw, system=self.prompts.system)
        if self.validation.num_texts:
            self.progress.say(encoder.describe())
        name = model.name if model.revision is None else f"{model.name}@{model.revision}"
        options = replace(self.options, style=replace(self.options.style, model=name))
        lines = self.file.requests(self.rules, self.validation.duplicates)
        # No more than was validated: somebody may still be appending to the file.
        requests = islice(lines, self.validation.num_requests)
        counts, stop = BatchCounts(self.validation.num_requests), StopSignal()
        with closing(self.open_output()) as writer, _shown(self.progress, counts), _first_press_stops(stop):
            BatchRun(engine, requests, encoder, writer.write, options, self.progress).run(counts, stop)
        if counts.done < counts.total:
            raise typer.Exit(INTERRUPTED)
        if counts.failed:
            where = "standard output" if self.results.path == "-" else quote(self.results.path)
            raise ItemsFailedError(
                f"{counts.failed} of {counts.total} requests failed", fix=f"their records in {where} say why"
            )


@contextmanager
def _shown(progress: "BatchProgress", counts: "BatchCounts") -> Iterator[None]:
    """Show the progress, and in any case how far it came."""
    progress.start(counts)
    try:
        yield
    finally:
        progress.stop()
        progress.summary(counts)
        if counts.done < counts.total:
            progress.say(f"stopped: {counts.done} of {counts.total} requests are done")


@contextmanager
def _first_press_stops(stop: "StopSignal") -> Iterator[None]:
    """The first Ctrl-C sets `stop`; the second raises KeyboardInterrupt."""

    def handle(signum: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _input_name(source: str | None) -> str:
    if source is None and sys.stdin.isatty():
        raise UsageError("no prompts", fix="llmcli run prompts.jsonl, or pipe them: ... | llmcli run -")
    return source or "-"


def _model_names(model: str | None) -> tuple[str, ...]:
    """What a line's `model` may be: the name as given, and without its revision or folder."""
    from llmcli.hub.models import BUNDLED_NAME

    if model is None:
        return (BUNDLED_NAME,)
    if os.path.isdir(model):
        return (model, os.path.basename(os.path.abspath(model)))
    return (model, model.partition("@")[0])
