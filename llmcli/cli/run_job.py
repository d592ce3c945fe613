"""The part of `llmcli run` that needs a model: serve a validated file, stop on Ctrl-C, say how to go on.

Puts the parts of `jobs/batch*.py` together. `cli/run.py` makes the job.
"""

import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from llmcli.cli.report import INTERRUPTED
from llmcli.cli.run_interrupt import CtrlC
from llmcli.config import Substitutes
from llmcli.errors import ItemsFailedError, quote

if TYPE_CHECKING:
    from llmcli.cli.run_options import PromptOptions, ResultOptions
    from llmcli.config import EngineConfig
    from llmcli.engine.engine import Engine
    from llmcli.hub.models import LocalModel
    from llmcli.jobs.batch.input import PromptFile, Validation
    from llmcli.jobs.batch.job import BatchOptions
    from llmcli.jobs.batch.output import RecordWriter
    from llmcli.jobs.batch.progress import BatchCounts, BatchProgress
    from llmcli.jobs.batch.requests import LineRules
    from llmcli.jobs.batch.resume import ResultFile

_MODES = ("--resume", "--retry-errors", "--overwrite", "--force")


@dataclass(frozen=True)
class BatchJob:
    """A validated prompt file with all that is needed to serve it but the engine.

    Attributes:
        output: the file that results go to; None for a stream or device.
        resume_command: what to type to go on when the job was stopped.
        substitutes: what is used in place of the model's own files.
    """

    file: "PromptFile"
    validation: "Validation"
    rules: "LineRules"
    prompts: "PromptOptions"
    results: "ResultOptions"
    options: "BatchOptions"
    progress: "BatchProgress"
    output: "ResultFile | None" = None
    resume_command: str = ""
    substitutes: Substitutes = Substitutes()  # noqa: RUF009 - it can not be changed

    def settings(self, model: "LocalModel", config: "EngineConfig") -> dict[str, Any]:
        """What the results depend on besides the lines, for the manifest.

        Raises:
            UsageError: the output was begun with other settings, and --force is not given.
            ModelNotRunnableError: a file of the model is broken, or something in it is not supported.
        """
        from llmcli.jobs.batch.manifest import check_same, model_settings

        if self.output is None:
            return {}
        settings = {
            **model_settings(model, config, self.options.sampling, self.substitutes),
            "system": self.prompts.system,
            "raw": self.prompts.raw,
            "column": self.prompts.column,
            "format": self.results.format,
            "ordered": self.results.ordered,
            "return_token_ids": self.results.return_token_ids,
        }
        if self.output.settings is not None and not self.results.force:
            check_same(self.results.path, self.output.settings, settings)
        return settings

    def open_output(self, settings: Mapping[str, Any]) -> "RecordWriter":
        """Create the output file, go on with it, or take standard output."""
        from llmcli.jobs.batch.output import RecordWriter

        if self.output is not None:
            return self.output.open(settings)
        return RecordWriter.to_stream(self.results.path, sys.stdout.buffer)

    def serve(self, engine: "Engine", model: "LocalModel", settings: Mapping[str, Any]) -> None:
        """Run every request that has no result yet.

        Raises:
            ItemsFailedError: all are done, and some have failed; or too many have.
            typer.Exit: with 130, interrupted.
        """
        from llmcli.jobs.batch.job import BatchRun, StopSignal
        from llmcli.jobs.batch.prompts import PromptEncoder

        encoder = PromptEncoder(
            engine.tokenizer,
            raw=self.prompts.raw,
            system=self.prompts.system,
            template_kwargs=self.substitutes.template_kwargs,
        )
        if self.validation.num_texts:
            self.progress.say(encoder.describe())
        name = model.name if model.revision is None else f"{model.name}@{model.revision}"
        options = replace(self.options, style=replace(self.options.style, model=name))
        finished = self.output.finished if self.output is not None else None
        requests = self.file.requests(self.rules, finished, limit=self.validation.num_requests)
        counts, stop = self._counts(), StopSignal()
        with closing(self.open_output(settings)) as sink, self._shown(counts), CtrlC(stop, self._leave):
            BatchRun(engine, requests, encoder, sink, options, self.progress).run(counts, stop)
        self._end(counts)

    def _counts(self) -> "BatchCounts":
        from llmcli.jobs.batch.progress import BatchCounts

        total = self.validation.num_requests
        if self.output is None:
            return BatchCounts(total)
        finished = self.output.finished
        if finished.num_met:
            self.progress.say(f"going on: {finished.num_met} of {total} requests are done")
        return BatchCounts(
            total, done=finished.num_met, resumed=finished.num_met, failures=Counter(finished.failures)
        )

    def _end(self, counts: "BatchCounts") -> None:
        limit = self.options.max_errors
        where = "standard output" if self.results.path == "-" else quote(self.results.path)
        if limit is not None and counts.failed > limit and counts.done < counts.total:
            raise ItemsFailedError(
                f"stopped: {counts.failed} requests failed, more than --max-errors {limit}",
                fix=f"their records in {where} say why",
            )
        if counts.done < counts.total:
            raise typer.Exit(INTERRUPTED)
        if counts.failed:
            raise ItemsFailedError(
                f"{counts.failed} of {counts.total} requests failed",
                fix=f"their records in {where} say why"
                + ("; --retry-errors runs them again" if self._can_retry else ""),
            )

    @contextmanager
    def _shown(self, counts: "BatchCounts") -> Iterator[None]:
        """Show the progress, and in any case how far it came and how to go on."""
        self.progress.start(counts)
        try:
            yield
        finally:
            self.progress.stop()
            self.progress.summary(counts)
            if counts.done < counts.total:
                self.progress.say(f"stopped: {counts.done} of {counts.total} requests are done")
                self._say_how_to_go_on()
                if counts.failed and self._can_retry:
                    self.progress.say("--retry-errors in place of --resume also runs the failed ones again")

    def _leave(self) -> None:
        """End the process while the engine computes a step: every record is whole, and in the file."""
        try:
            self.progress.stop()
            self.progress.say("stopped in the middle of a step")
            self._say_how_to_go_on()
        finally:
            os._exit(INTERRUPTED)

    @property
    def _can_resume(self) -> bool:
        return self.output is not None and self.results.format != "text"

    @property
    def _can_retry(self) -> bool:
        return self._can_resume and not self.results.ordered

    def _say_how_to_go_on(self) -> None:
        if self._can_resume:
            self.progress.say(f"to go on: {self.resume_command}")


def resume_command(arguments: Sequence[str], *, from_pipe: bool) -> str:
    """What to type to go on after a stop: the same again, with --resume."""
    kept = [argument for argument in arguments if argument not in _MODES]
    return ("... | " if from_pipe else "") + shlex.join(["llmcli", *kept, "--resume"])
