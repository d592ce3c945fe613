"""`llmcli run`: a file of prompts through the engine, many at once, into a file of results.

What can be wrong with the options, the input and the output is found here, before the model is loaded; the
rest is `cli/run_job.py`. Imports nothing heavy; `cli/app.py` calls it.
"""

import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING

from llmcli.cli.command import Settings
from llmcli.cli.form_options import FormOptions
from llmcli.cli.options import EngineOptions, ModelOption, ModelOptions, Quiet, SamplingOptions
from llmcli.cli.run_options import Input, MaxInflight, Progress, PromptOptions, ResultOptions
from llmcli.cli.template_options import TemplateOptions
from llmcli.errors import ItemsFailedError, UsageError, quote
from llmcli.ui.parameters import FLAG

if TYPE_CHECKING:
    from llmcli.cli.run_job import BatchJob
    from llmcli.config import EngineConfig
    from llmcli.jobs.batch.input import PromptFile
    from llmcli.jobs.batch.records import RecordStyle
    from llmcli.jobs.batch.resume import ResultFile

INFLIGHT_PER_SEQ = 4


def run(
    source: Input = None,
    model: ModelOption = None,
    *,
    results: ResultOptions,
    prompts: PromptOptions,
    forms: FormOptions,
    template: TemplateOptions,
    max_inflight: MaxInflight = None,
    progress: Progress = "auto",
    quiet: Quiet = False,
    hub: ModelOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    settings: Settings,
) -> None:
    """Answer every prompt of a file, many at once.

    Lines are "text", {"prompt": "..."}, {"messages": [...]}, {"prompt_token_ids": [...]} or OpenAI batch requests,
    with any sampling field, and json_schema, regex, choice or response_format for the form of the answer. Each result
    is written as soon as it is there, and a run that was stopped or killed goes on with --resume. For a conversation:
    llmcli chat.

    Examples:
        llmcli run prompts.jsonl -m owner/name -o answers.jsonl
        llmcli run prompts.jsonl -m owner/name -o answers.jsonl --resume
        llmcli run prompts.jsonl --json-schema @person.json -o people.jsonl
        llmcli run questions.csv --column question --ordered -o answers.jsonl
        cat prompts.txt | llmcli run - | jq -r .text
    """
    from llmcli.cli.run_job import BatchJob, resume_command
    from llmcli.jobs.batch.input import file_status
    from llmcli.jobs.batch.job import BatchOptions
    from llmcli.jobs.batch.output import check_output
    from llmcli.jobs.batch.progress import BatchProgress
    from llmcli.jobs.batch.requests import LineRules
    from llmcli.ui.console import stderr_console

    config, flags, substitutes = engine.config(), sampling.overrides(), template.substitutes()
    if form := forms.form(settings.origins):
        flags["structured"] = form
    results.check()
    prompts.check(template.any_template)
    to_terminal = results.path == "-" and sys.stdout.isatty()
    options = BatchOptions(
        sampling=flags,
        max_inflight=max_inflight or INFLIGHT_PER_SEQ * config.max_num_seqs,
        ordered=results.keeps_order,
        style=_style(results, for_terminal=to_terminal),
        max_errors=prompts.max_errors,
    )
    typed = model if settings.origins.get("model") == FLAG else None
    rules = LineRules(_model_names(typed, settings.aliases), flags, prompts.raw, prompts.column)
    shown = BatchProgress(stderr_console(), form=progress, quiet=quiet, results_here=to_terminal)
    with ExitStack() as stack:
        file = stack.enter_context(_open_input(source or [], prompts))
        check_output(results.path, file.status, mode=results.mode, stdout=file_status(sys.stdout.buffer))
        output = _result_file(results)
        if output is not None:
            stack.enter_context(output)
        earlier = output.finished if output is not None and output.finished.num_records else None
        validation = file.validate(rules, earlier)
        prompts.check_lines(file.name, validation)
        if output is not None and not results.force:
            output.check(file.name)
        command = resume_command(sys.argv[1:], from_pipe=file.name == "standard input")
        job = BatchJob(
            file, validation, rules, prompts, results, options, shown, output, command, substitutes
        )
        if not _nothing_to_do(job):
            named = settings.aliases.get(validation.model or "", validation.model)
            # A line's model goes before a default.
            _serve(job, typed or named or model, hub, config, settings.aliases)


def _serve(
    job: "BatchJob", model: str | None, hub: ModelOptions, config: "EngineConfig", aliases: Mapping[str, str]
) -> None:
    """Find the model and load it, then run what is left to do."""
    from llmcli.cli.verdict import before_download
    from llmcli.hub.models import resolve_model

    job = replace(job, rules=replace(job.rules, models=_model_names(model, aliases)))
    say = job.progress.say
    if mixture := job.validation.describe_mixture():
        say(mixture)
    found = resolve_model(
        model,
        revision=hub.revision,
        offline=hub.offline,
        on_notice=say,
        before_fetch=before_download(config, say),
    )
    made_with = job.settings(found, config)

    from llmcli.engine.build import build_engine  # torch: only once the model is here

    engine = build_engine(found, config, substitutes=job.substitutes, on_phase=say, on_warning=say)
    with closing(engine):
        job.serve(engine, found, made_with)


def _nothing_to_do(job: "BatchJob") -> bool:
    """Whether no request is left, which is told; an empty input still makes an output."""
    total = job.validation.num_requests
    if total == 0:
        with closing(job.open_output({})):
            job.progress.say(f"0 requests in {quote(job.file.name)}")
        return True
    finished = job.output.finished if job.output is not None else None
    if finished is None or finished.num_met < total:
        return False
    job.progress.say(f"all {total} requests of {quote(job.file.name)} are done in {quote(job.results.path)}")
    if finished.failures:
        raise ItemsFailedError(
            f"{finished.failures.total()} of {total} requests failed", fix="--retry-errors runs them again"
        )
    return True


def _style(results: ResultOptions, *, for_terminal: bool) -> "RecordStyle":
    from llmcli.jobs.batch.records import RecordStyle

    return RecordStyle(
        format=results.format,
        token_ids=results.return_token_ids,
        separator=b"\0" if results.null else b"\n",
        for_terminal=for_terminal,
    )


def _open_input(sources: list[str], prompts: PromptOptions) -> "PromptFile":
    from llmcli.jobs.batch.input import PromptFile, looks_like_a_model

    if prompts.prompt:
        if sources:
            raise UsageError(
                f"--prompt is given, and so is the file {quote(sources[0])}", fix="give one of the two"
            )
        return PromptFile.of_texts(prompts.prompt)
    if len(sources) > 1:
        told = shlex.join(sources)
        fix = f"llmcli chat {told}" if looks_like_a_model(sources[0]) else f"cat {told} | llmcli run -"
        raise UsageError(f"run takes one prompt file, got {len(sources)} arguments", fix=quote(fix, 400))
    if not sources and sys.stdin.isatty():
        raise UsageError("no prompts", fix="llmcli run prompts.jsonl, or pipe them: ... | llmcli run -")
    form = None if prompts.input_format == "auto" else prompts.input_format
    return PromptFile.open(sources[0] if sources else "-", sys.stdin.buffer, form=form, column=prompts.column)


def _result_file(results: ResultOptions) -> "ResultFile | None":
    """The output with what earlier runs left in it; None for a stream or device."""
    from llmcli.jobs.batch.resume import ResultFile

    if results.path == "-" or (os.path.exists(results.path) and not os.path.isfile(results.path)):
        return None
    return ResultFile(results.path, results.mode, retry_errors=results.retry_errors)


def _model_names(model: str | None, aliases: Mapping[str, str]) -> tuple[str, ...]:
    """What a line's `model` may be: the name as given or without revision or folder, or an alias; all for None."""
    if model is None:
        return ()
    is_folder = os.path.isdir(model)
    short = os.path.basename(os.path.abspath(model)) if is_folder else model.partition("@")[0]
    return (model, short, *(alias for alias, name in aliases.items() if name == model))
