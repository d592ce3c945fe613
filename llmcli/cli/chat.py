"""`llmcli chat`: talk to a model, or have one prompt answered.

Parses, builds and calls; the conversation itself is in `ui/`.
"""

import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmcli.cli.options import EngineOptions, ModelOptions, SamplingOptions, System
from llmcli.errors import UsageError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from llmcli.ui.notes import Notes
    from llmcli.ui.prompt_reader import PromptReader
    from llmcli.ui.session import Reader
    from llmcli.ui.state import ChatState
    from llmcli.ui.view import PlainView

SLOW_STDIN_S = 1.0


def chat(
    first: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="A Hugging Face id (owner/name or owner/name@revision) or a folder; else the bundled model.",
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
    stats: Annotated[
        bool | None,
        typer.Option(
            "--stats/--no-stats", show_default=False, help="Numbers after each answer; else on a terminal."
        ),
    ] = None,
    history: Annotated[
        bool,
        typer.Option(
            "--history/--no-history", show_default=False, help="Keep what is typed for the next chat."
        ),
    ] = True,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Tell the phases of loading, the memory plan and where values come from."
        ),
    ] = False,
    model_options: ModelOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
) -> None:
    """Chat with a model in the terminal, or answer one prompt and exit."""
    from functools import partial

    from llmcli.cli.verdict import before_download
    from llmcli.hub.models import resolve_model
    from llmcli.ui.backend import load_backend
    from llmcli.ui.console import stderr_console
    from llmcli.ui.conversation import Conversation
    from llmcli.ui.loading import Loader
    from llmcli.ui.notes import Notes
    from llmcli.ui.once import answer_once
    from llmcli.ui.parameters import Parameters
    from llmcli.ui.positionals import split_model_and_prompt
    from llmcli.ui.state import ChatState
    from llmcli.ui.waiting import Waiting

    if interactive and single_turn:
        raise UsageError("--interactive and --single-turn exclude each other", fix="give one of them")
    parameters, config, notes = Parameters(sampling.overrides()), engine.config(), Notes(stderr_console())
    name, prompt = split_model_and_prompt(first, second)
    if first and prompt == first and not any(char.isspace() for char in first):
        notes.dim(f"“{first}” is taken as a prompt for the bundled model; a model is owner/name or a folder")
    prompt = _with_piped_text(prompt, interactive, notes)
    wants_session = interactive or (prompt is None and _is_terminal(sys.stdin))
    if prompt is None and not wants_session:
        raise UsageError(
            "there is no prompt: standard input is empty", fix='type llmcli chat "your question"'
        )

    model = resolve_model(
        name,
        revision=model_options.revision,
        offline=model_options.offline,
        on_notice=notes.dim,
        before_fetch=before_download(config, notes.dim),
    )
    loader = Loader(partial(load_backend, model, config))
    waiting = Waiting(loader, model.name, notes, parameters, verbose=verbose)
    state = ChatState(
        conversation=Conversation(system),
        parameters=parameters,
        notes=notes,
        backend=waiting,
        show_stats=_is_terminal(sys.stderr) if stats is None else stats,
    )
    loader.start()
    try:
        if wants_session:
            _run_session(state, prompt, keep_history=history, single_turn=single_turn)
        else:
            answer_once(state, prompt or "", _new_view)
    finally:
        loader.close()


def _run_session(state: "ChatState", prompt: str | None, *, keep_history: bool, single_turn: bool) -> None:
    """Chat on the terminal; where there is none to edit lines on, with plain lines."""
    from contextlib import nullcontext

    from llmcli.ui.line_reader import LineReader
    from llmcli.ui.session import ChatSession
    from llmcli.ui.terminal import type_ahead

    reader: Reader
    mode: AbstractContextManager[None]
    if _is_terminal(sys.stdout) and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        reader, mode = _prompt_reader(state, keep_history), type_ahead(sys.stdout.fileno())
    else:
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
        reader, mode = LineReader(sys.stdin, sys.stderr), nullcontext()
    session = ChatSession(state, reader, _new_view)
    with mode:
        if single_turn:
            session.run_once()
        else:
            state.notes.dim(f"{state.backend.name} · /help lists the commands · Ctrl-D leaves")
            session.run(prompt)


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
    import platformdirs

    from llmcli.ui.commands import complete
    from llmcli.ui.prompt_reader import PromptReader, open_history

    path = Path(platformdirs.user_state_dir("llmcli", appauthor=False)) / "history" if keep_history else None
    try:
        history = open_history(path)
    except OSError as error:
        state.notes.warn(f"what you type is not kept for the next chat: {path}: {error.strerror}")
        history = open_history(None)
    reader = PromptReader(history, complete, state.backend.progress)
    state.backend.on_done(reader.loading_done)
    return reader


def _new_view() -> "PlainView":
    """A view on stdout that wraps at words where a person reads along."""
    import shutil

    from llmcli.ui.view import PlainView
    from llmcli.ui.wrap import WordWrap

    wrap = WordWrap(lambda: shutil.get_terminal_size().columns) if _is_terminal(sys.stdout) else None
    return PlainView(sys.stdout, wrap)


def _is_terminal(stream: object) -> bool:
    return stream is not None and stream.isatty()  # type: ignore[attr-defined]
