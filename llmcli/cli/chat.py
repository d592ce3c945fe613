"""`llmcli chat`: talk to a model, or have one prompt answered.

Parses, builds and calls; the conversation itself is in `ui/`, the choice of a saved one in `chat_session.py`, what
needs the terminal in `chat_terminal.py`.
"""

import json
import os
import select
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from llmcli.cli.chat_options import AnswerOptions, ServerOptions, SessionOptions
from llmcli.cli.chat_session import check_options, open_session, save_at_the_end
from llmcli.cli.chat_terminal import can_edit, is_terminal, new_view, prompt_reader, terminal_of_commands
from llmcli.cli.command import Settings
from llmcli.cli.completion import complete_model
from llmcli.cli.form_options import FormOptions
from llmcli.cli.options import EngineOptions, ModelOptions, SamplingOptions, System
from llmcli.cli.saved_chats import last_model
from llmcli.cli.template_options import TemplateOptions
from llmcli.errors import UsageError
from llmcli.ui.parameters import FLAG, FORM, MODEL

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from llmcli.ui.models import Models
    from llmcli.ui.notes import Notes
    from llmcli.ui.parameters import Parameters
    from llmcli.ui.session import Reader
    from llmcli.ui.sessions.records import SavedChat
    from llmcli.ui.state import ChatState
    from llmcli.ui.waiting import Waiting

SLOW_STDIN_S = 1.0


def chat(
    first: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            autocompletion=complete_model,
            help="A Hugging Face id (owner/name, owner/name@revision) or a folder; else your default model, the one"
            " of your last chat, or the bundled one.",
        ),
    ] = None,
    second: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            show_default=False,
            help="Answer this once and exit. Piped text is added after a blank line, or is the prompt.",
        ),
    ] = None,
    *,
    system: System = None,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Go on with a chat after the prompt.")
    ] = False,
    # Two letters after one dash are the name that llama.cpp's users type.
    single_turn: Annotated[
        bool, typer.Option("--single-turn", "-st", help="Exit after the first answer.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Tell the phases of loading, the memory plan and where values come from."
        ),
    ] = False,
    answers: AnswerOptions,
    forms: FormOptions,
    template: TemplateOptions,
    sessions: SessionOptions,
    server: ServerOptions,
    model_options: ModelOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    settings: Settings,
) -> None:
    """Chat with a model, or answer one prompt and exit.

    Examples:
        llmcli chat
        llmcli chat TheBloke/Llama-2-7B-Chat-AWQ --system "Answer in one sentence."
        llmcli chat "Why is the sky blue?" --temperature 0
        llmcli chat Qwen/Qwen3-0.6B --thinking-budget 500
        llmcli chat ./my-model --chat-template chat.jinja --chat-template-kwargs '{"enable_thinking": false}'
        llmcli chat "Name a colour" --choice red --choice green
        llmcli chat "Make up a person" --json-schema '{"type": "object"}'
        llmcli chat --continue
        llmcli chat --url http://127.0.0.1:8000/v1
        git diff | llmcli chat "Write a commit message for this"
    """
    from llmcli.cli.chat_bench import measure
    from llmcli.cli.verdict import before_download
    from llmcli.ui.console import stderr_console
    from llmcli.ui.conversation import Conversation
    from llmcli.ui.models import LocalModels
    from llmcli.ui.notes import Notes
    from llmcli.ui.once import answer_once
    from llmcli.ui.parameters import Parameters
    from llmcli.ui.state import ChatState
    from llmcli.ui.text_files import read_text

    if interactive and single_turn:
        raise UsageError("--interactive and --single-turn exclude each other", fix="give one of them")
    check_options(sessions)
    answers.check()
    flags, config, notes = sampling.overrides(), engine.config(), Notes(stderr_console())
    substitutes = template.substitutes()
    num_logprobs = flags.pop("logprobs", None)
    origins = dict(settings.origins)
    if form := forms.form(origins):
        flags[FORM] = form
        origins[FORM] = origins.get(forms.chosen(origins) or "", FLAG)
    if settings.origins.get("api_key") == FLAG:
        notes.warn(
            "others on this machine can see --api-key in the list of processes; LLMCLI_API_KEY hides it"
        )
    parameters = Parameters(
        flags, origins, MODEL if substitutes.generation_defaults is None else template.generation_config
    )
    attachments = [read_text(name) for name in answers.files or ()]
    log, saved = open_session(sessions, notes)
    models: Models = (
        _remote_models(server, saved, (first, second), notes, parameters, verbose=verbose)
        or LocalModels(
            config,
            notes,
            parameters,
            substitutes=substitutes,
            aliases=settings.aliases,
            before_fetch=before_download(config, notes.dim),
            offline=model_options.offline,
            verbose=verbose,
        )
    )  # fmt: skip
    if models.url is not None:
        template.refuse_with_a_server(settings.origins)
        parameters.fill(substitutes.generation_defaults or {})
        _check_form(parameters, models, origins, notes)
    name, prompt = _split(first, second, models)
    if models.url is None and (saved is None or not saved.setup.model):
        name = name or settings.model or last_model()
    if first and prompt == first and saved is None:
        _tell_taken_as_prompt(first, name, models, notes)
    prompt = _with_piped_text(prompt, interactive, notes)
    wants_session = interactive or (prompt is None and is_terminal(sys.stdin))
    if prompt is None and not wants_session and not attachments:
        raise UsageError(
            "there is no prompt: standard input is empty", fix='type llmcli chat "your question"'
        )
    if answers.as_json and wants_session:
        raise UsageError(
            "--json prints a single answer, and there is no prompt", fix="give one, or leave --json out"
        )
    if log.idle and wants_session:
        log.begin()

    state = ChatState(
        conversation=Conversation(),
        parameters=parameters,
        notes=notes,
        backend=_prepare(models, name, model_options.revision, saved, notes),
        models=models,
        log=log,
        terminal=terminal_of_commands(),
        show_stats=is_terminal(sys.stderr) if answers.stats is None else answers.stats,
        drop_turns=answers.overflow == "drop",
        prefill=answers.prefill,
        show_thinking=answers.show_thinking,
        markdown=answers.markdown,
        wrap=answers.wrap,
        num_logprobs=num_logprobs,
        attachments=attachments,
        measure=measure,
        template_variables=substitutes.template_kwargs,
    )
    if saved is not None:
        state.take_over(saved)
    if system is not None:
        state.conversation.system = system or None
    if answers.think is not None:
        state.think = answers.think
    if answers.thinking_budget is not None:
        state.thinking_budget = answers.thinking_budget
    state.backend.start()
    try:
        if wants_session:
            _run_session(state, prompt, keep_history=sessions.history, single_turn=single_turn)
        elif answers.as_json:
            _print_json(state, prompt or "")
        else:
            answer_once(state, prompt or "", lambda: new_view(state))
    finally:
        save_at_the_end(state, sessions)
        log.close()
        state.backend.close()


def _check_form(
    parameters: "Parameters", models: "Models", origins: Mapping[str, str], notes: "Notes"
) -> None:
    """See whether a server can be told the form; one that was not typed is left out if not."""
    if parameters.form is None:
        return
    try:
        models.check_form(parameters.form)
    except UsageError as error:
        if origins.get(FORM) == FLAG:
            raise
        parameters.set_form(None)
        notes.warn(f"the form from {origins.get(FORM)} is left out: {error.what}")


def _remote_models(
    server: ServerOptions,
    saved: "SavedChat | None",
    words: tuple[str | None, str | None],
    notes: "Notes",
    parameters: "Parameters",
    *,
    verbose: bool,
) -> "Models | None":
    """The models of the server that is asked for, or that the saved chat was with."""
    from llmcli.ui.positionals import split_model_and_prompt

    url = server.url
    if url is None and saved is not None and split_model_and_prompt(*words)[0] is None:
        url = saved.setup.url
    if url is None:
        return None
    from llmcli.ui.models import RemoteModels
    from llmcli.ui.remote.server import Server

    return RemoteModels(Server(url, server.api_key), notes, parameters, verbose=verbose)


def _split(first: str | None, second: str | None, models: "Models") -> tuple[str | None, str | None]:
    """Model and prompt. Of a server's models the names can have any form, so one word is looked up."""
    from llmcli.ui.models import RemoteModels
    from llmcli.ui.positionals import split_model_and_prompt

    if isinstance(models, RemoteModels):
        if first is None or second is not None or first in models.names():
            return first, second
        return None, first
    return split_model_and_prompt(first, second)


def _tell_taken_as_prompt(word: str, name: str | None, models: "Models", notes: "Notes") -> None:
    """Say so of a single word, which may have been meant as a model."""
    if any(char.isspace() for char in word):
        return
    if models.url is not None:
        notes.dim(f"“{word}” is taken as a prompt; the server has no model of this name")
    else:
        which = f"“{name}”" if name else "the bundled model"
        notes.dim(f"“{word}” is taken as a prompt for {which}; a model is owner/name or a folder")


def _prepare(
    models: "Models", name: str | None, revision: str | None, saved: "SavedChat | None", notes: "Notes"
) -> "Waiting":
    """The model that is named, else that of the saved chat, else the first."""
    from llmcli.errors import LLMCliError

    if saved is None or not saved.setup.model:
        return models.prepare(name, revision)
    setup = saved.setup
    if name is None and setup.url == models.url:
        try:
            return models.prepare(setup.model, revision or setup.revision)
        except LLMCliError:
            notes.warn(
                "the model of this session can not be had; name another: llmcli chat MODEL --resume ID"
            )
            raise
    backend = models.prepare(name, revision)
    if (backend.model.name, backend.model.url) != (setup.model, setup.url):
        notes.warn(f"this session was with {setup.model}; it goes on with {backend.name}")
    return backend


def _run_session(state: "ChatState", prompt: str | None, *, keep_history: bool, single_turn: bool) -> None:
    """Chat on the terminal; where there is none to edit lines on, with plain lines."""
    from contextlib import nullcontext

    from llmcli.ui.line_reader import LineReader
    from llmcli.ui.session import ChatSession
    from llmcli.ui.terminal import type_ahead

    reader: Reader
    mode: AbstractContextManager[None]
    if can_edit():
        reader, mode = prompt_reader(state, keep_history), type_ahead(sys.stdout.fileno())
    else:
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
        reader, mode = LineReader(sys.stdin, sys.stderr), nullcontext()
    session = ChatSession(state, reader, lambda: new_view(state))
    try:
        with mode:
            if single_turn:
                session.run_once()
            else:
                hello = f"{state.backend.name} · /help lists the commands · Ctrl-D leaves"
                state.notes.dim(state.notes.fit(hello))
                session.run(prompt)
    finally:
        if state.log.session_id is not None and is_terminal(sys.stderr):
            state.notes.dim(f"saved; llmcli chat --resume {state.log.session_id} goes on with it")


def _print_json(state: "ChatState", prompt: str) -> None:
    from llmcli.ui.once import SilentView, answer_once, answer_record

    answer = answer_once(state, prompt, SilentView)
    # On a terminal escaped: of the control characters of a model JSON itself escapes only some.
    typer.echo(json.dumps(answer_record(state, answer), ensure_ascii=is_terminal(sys.stdout)))


def _with_piped_text(prompt: str | None, interactive: bool, notes: "Notes") -> str | None:
    """Add what comes through a pipe to the prompt.

    Nothing is read where each line of the pipe is a message of its own: in a session without a terminal.

    Raises:
        UsageError: the piped text is not UTF-8.
    """
    from llmcli.ui.positionals import join_prompt

    if sys.stdin is None or is_terminal(sys.stdin) or (interactive and not is_terminal(sys.stdout)):
        return join_prompt(prompt, None)
    if prompt is not None and os.name == "posix" and not select.select([sys.stdin], [], [], SLOW_STDIN_S)[0]:
        notes.dim(
            "waiting for the end of standard input, which is added to the prompt; < /dev/null gives none"
        )
    data = sys.stdin.buffer.read()
    try:
        return join_prompt(prompt, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UsageError(
            f"standard input is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}"
        ) from None
