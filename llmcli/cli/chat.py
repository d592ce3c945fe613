"""`llmcli chat`: talk to a model, or have one prompt answered.

Parses, builds and calls; the conversation itself is in `ui/`, the choice of a saved one in `chat_session.py`.
"""

import json
import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmcli.cli.chat_options import AnswerOptions, ServerOptions, SessionOptions
from llmcli.cli.command import Settings
from llmcli.cli.completion import complete_model
from llmcli.cli.options import EngineOptions, ModelOptions, SamplingOptions, System
from llmcli.errors import UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from llmcli.ui.models import Models
    from llmcli.ui.notes import Notes
    from llmcli.ui.parameters import Parameters
    from llmcli.ui.prompt_reader import PromptReader
    from llmcli.ui.session import Reader
    from llmcli.ui.session_records import SavedChat
    from llmcli.ui.state import ChatState, Terminal
    from llmcli.ui.thinking import ThinkingMode
    from llmcli.ui.view import Thinking, View
    from llmcli.ui.waiting import Waiting

SLOW_STDIN_S = 1.0


def chat(
    first: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            autocompletion=complete_model,
            help="A Hugging Face id (owner/name, owner/name@revision) or a folder; else your default model.",
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
    sessions: SessionOptions,
    server: ServerOptions,
    model_options: ModelOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    settings: Settings,
) -> None:
    """Chat with a model in the terminal, or answer one prompt and exit.

    Examples:
        llmcli chat
        llmcli chat TheBloke/Llama-2-7B-Chat-AWQ --system "Answer in one sentence."
        llmcli chat "Why is the sky blue?" --temperature 0
        llmcli chat --continue
        llmcli chat --url http://127.0.0.1:8000/v1
        git diff | llmcli chat "Write a commit message for this"
    """
    from llmcli.cli.chat_session import check_options, open_session, save_at_the_end
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
    flags, config, notes = sampling.overrides(), engine.config(), Notes(stderr_console())
    num_logprobs = flags.pop("logprobs", None)
    parameters = Parameters(flags, settings.origins)
    attachments = [read_text(name) for name in answers.files or ()]
    log, saved = open_session(sessions, notes)
    models: Models = (
        _remote_models(server, saved, (first, second), notes, parameters, verbose=verbose)
        or LocalModels(
            config,
            notes,
            parameters,
            before_fetch=before_download(config, notes.dim),
            offline=model_options.offline,
            verbose=verbose,
        )
    )  # fmt: skip
    name, prompt = _split(first, second, models)
    if models.url is None and (saved is None or not saved.setup.model):
        name = name or settings.model
    if first and prompt == first and saved is None and not any(char.isspace() for char in first):
        which = f"“{name}”" if name else "the bundled model"
        notes.dim(f"“{first}” is taken as a prompt for {which}; a model is owner/name or a folder")
    prompt = _with_piped_text(prompt, interactive, notes)
    wants_session = interactive or (prompt is None and _is_terminal(sys.stdin))
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
        terminal=_terminal(),
        show_stats=_is_terminal(sys.stderr) if answers.stats is None else answers.stats,
        drop_turns=answers.overflow == "drop",
        prefill=answers.prefill,
        show_thinking=answers.show_thinking,
        num_logprobs=num_logprobs,
        attachments=attachments,
    )
    if saved is not None:
        state.take_over(saved)
    if system is not None:
        state.conversation.system = system or None
    if answers.think is not None:
        state.think = answers.think
    state.backend.start()
    try:
        if wants_session:
            _run_session(state, prompt, answers, keep_history=sessions.history, single_turn=single_turn)
        elif answers.as_json:
            _print_json(state, prompt or "")
        else:
            answer_once(state, prompt or "", lambda: _new_view(answers, state.show_thinking))
    finally:
        save_at_the_end(state, sessions)
        log.close()
        state.backend.close()


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
    from llmcli.ui.server import Server

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


def _run_session(
    state: "ChatState", prompt: str | None, answers: AnswerOptions, *, keep_history: bool, single_turn: bool
) -> None:
    """Chat on the terminal; where there is none to edit lines on, with plain lines."""
    from contextlib import nullcontext

    from llmcli.ui.line_reader import LineReader
    from llmcli.ui.session import ChatSession
    from llmcli.ui.terminal import type_ahead

    reader: Reader
    mode: AbstractContextManager[None]
    if _can_edit():
        reader, mode = _prompt_reader(state, keep_history), type_ahead(sys.stdout.fileno())
    else:
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
        reader, mode = LineReader(sys.stdin, sys.stderr), nullcontext()
    session = ChatSession(state, reader, lambda: _new_view(answers, state.show_thinking))
    try:
        with mode:
            if single_turn:
                session.run_once()
            else:
                state.notes.dim(f"{state.backend.name} · /help lists the commands · Ctrl-D leaves")
                session.run(prompt)
    finally:
        if state.log.session_id is not None and _is_terminal(sys.stderr):
            state.notes.dim(f"saved; llmcli chat --resume {state.log.session_id} goes on with it")


def _print_json(state: "ChatState", prompt: str) -> None:
    from llmcli.ui.once import SilentView, answer_once, answer_record

    answer = answer_once(state, prompt, SilentView)
    typer.echo(json.dumps(answer_record(state, answer), ensure_ascii=False))


def _with_piped_text(prompt: str | None, interactive: bool, notes: "Notes") -> str | None:
    """Add what comes through a pipe to the prompt.

    Nothing is read where each line of the pipe is a message of its own: in a session without a terminal.

    Raises:
        UsageError: the piped text is not UTF-8.
    """
    from llmcli.ui.positionals import join_prompt

    if sys.stdin is None or _is_terminal(sys.stdin) or (interactive and not _is_terminal(sys.stdout)):
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


def _prompt_reader(state: "ChatState", keep_history: bool) -> "PromptReader":
    from llmcli.cli.chat_session import state_folder
    from llmcli.ui.commands import complete
    from llmcli.ui.prompt_reader import PromptReader, open_history

    path: Path | None = state_folder() / "history" if keep_history else None
    try:
        history = open_history(path)
    except OSError as error:
        state.notes.warn(f"what you type is not kept for the next chat: {path}: {error.strerror}")
        history = open_history(None)
    reader = PromptReader(
        history,
        complete,
        lambda: state.backend.progress(),
        thinking=state.conversation.last_reasoning,
        edit_last=lambda: "/edit" if state.conversation.turns else None,
    )
    state.backend.on_done(reader.loading_done)
    # A model that is switched to and fails ends no chat: the next message tells, and the one before is back.
    state.on_model = lambda backend: backend.on_done(lambda error: reader.loading_done(None))
    return reader


def _terminal() -> "Terminal":
    """What the terminal can do for commands, if there is one."""
    from functools import partial

    from llmcli.ui.clipboard import put_clipboard
    from llmcli.ui.state import Terminal

    if not _can_edit():
        return Terminal()
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    return Terminal(editor=editor, put_clipboard=partial(put_clipboard, sys.stdout))


def _new_view(answers: AnswerOptions, show_thinking: bool | None) -> "View":
    """A view on stdout: Markdown where a person reads along, plain text as it is in a pipe.

    Args:
        show_thinking: True leaves reasoning on the screen or writes it into the pipe, False never shows it.
    """
    from llmcli.ui.console import stdout_console
    from llmcli.ui.live_region import LiveRegion
    from llmcli.ui.markdown_view import MarkdownView
    from llmcli.ui.thinking import TaggedThinking, ThinkingView
    from llmcli.ui.view import AnswerView, PlainView
    from llmcli.ui.wrap import WordWrap

    terminal, live = _is_terminal(sys.stdout), _can_edit()
    region = LiveRegion(sys.stdout, live=live)
    text: MarkdownView | PlainView
    if live if answers.markdown is None else answers.markdown:
        text = MarkdownView(stdout_console(), region)
    else:
        wants_wrap = terminal if answers.wrap is None else answers.wrap
        text = PlainView(sys.stdout, WordWrap(lambda: region.width) if wants_wrap else None)
    thinking: Thinking | None = None
    if terminal:
        mode: ThinkingMode = "fold" if show_thinking is None else "show" if show_thinking else "hide"
        thinking = ThinkingView(region, mode, styled=live)
    elif show_thinking:
        thinking = TaggedThinking(sys.stdout)
    return AnswerView(text, thinking)


def _can_edit() -> bool:
    """Whether lines can be edited: the output is a terminal that can move its cursor."""
    return _is_terminal(sys.stdout) and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def _is_terminal(stream: object) -> bool:
    return stream is not None and stream.isatty()  # type: ignore[attr-defined]
