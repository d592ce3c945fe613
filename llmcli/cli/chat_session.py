"""Which saved chat `llmcli chat` goes on with, which model without one being named, and where it leaves a chat. Called
by `chat.py`; `sessions.py` shares its folder.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcli.cli.command import OPTIONAL_VALUE
from llmcli.errors import LLMCliError, UsageError, quote

if TYPE_CHECKING:
    from llmcli.ui.notes import Notes
    from llmcli.ui.session_log import SessionLog
    from llmcli.ui.session_records import SavedChat
    from llmcli.ui.session_store import SessionStore
    from llmcli.ui.state import ChatState

SESSION = "Session options"
MAX_LISTED = 15
MAX_LOOKED_AT = 20  # sessions, for the model that was used last


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Which saved chat is gone on with, and where this one is kept."""

    latest: Annotated[
        bool,
        typer.Option("--continue", "-c", help="Go on with the latest session.", rich_help_panel=SESSION),
    ] = False
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar=OPTIONAL_VALUE,
            show_default=False,
            help="Go on with this session; without ID, choose from a list.",
            rich_help_panel=SESSION,
        ),
    ] = None
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            metavar="NAME",
            show_default=False,
            help="Go on with the session of this name, or begin it.",
            rich_help_panel=SESSION,
        ),
    ] = None
    load: Annotated[
        Path | None,
        typer.Option(
            "--load",
            metavar="FILE",
            show_default=False,
            help="Begin with the chat in a .jsonl or .json file (OpenAI messages).",
            rich_help_panel=SESSION,
        ),
    ] = None
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="FILE",
            show_default=False,
            help="Write the chat to a .md, .json or .jsonl file at the end.",
            rich_help_panel=SESSION,
        ),
    ] = None
    log: Annotated[
        bool,
        typer.Option(
            "--log/--no-log",
            show_default=False,
            help="Save chats as they go, in the user's state folder.",
            rich_help_panel=SESSION,
        ),
    ] = True
    history: Annotated[
        bool,
        typer.Option(
            "--history/--no-history",
            show_default=False,
            help="Keep what is typed for the next chat.",
            rich_help_panel=SESSION,
        ),
    ] = True

    @staticmethod
    def unnamed_model(typed: Mapping[str, Any], default: str | None) -> str | None:
        """The model of a chat for which none is typed; `cli/command.py` applies the settings for that model."""
        return unnamed_model(typed, default)


def state_folder() -> Path:
    """Where what outlives a chat is kept."""
    import platformdirs

    return Path(platformdirs.user_state_dir("llmcli", appauthor=False))


def session_store() -> "SessionStore":
    """The saved chats of this user."""
    from llmcli.ui.session_store import SessionStore

    return SessionStore(state_folder() / "sessions")


def last_model() -> str | None:
    """The model of this machine that was chatted with last, if it is still here."""
    from llmcli.hub.models import find_local

    setups = islice(session_store().setups(), MAX_LOOKED_AT)
    for name in dict.fromkeys(setup.model for setup in setups if setup.url is None):
        try:
            if find_local(name) is not None:
                return name
        except LLMCliError:  # a folder that is gone, or is no model any more
            continue
    return None


def unnamed_model(typed: Mapping[str, Any], default: str | None) -> str | None:
    """The model of a chat for which none is typed: that of the session which is gone on with, the default, the last.

    Args:
        typed: values of options as they stand on the command line.
    """
    wanted = SessionOptions(
        latest=bool(typed.get("latest")), resume=typed.get("resume") or None, session=typed.get("session")
    )
    store = session_store()
    try:
        session_id = _choose(wanted, store)
        saved = "" if session_id is None else store.read(session_id).setup.model
    except UsageError:  # `open_session` tells
        saved = ""
    return saved or default or (None if typed.get("url") else last_model())


def check_options(options: SessionOptions) -> None:
    """Refuse what can not go together, and a file that can not be written at the end.

    Raises:
        UsageError: says which.
    """
    chosen = {
        "--continue": options.latest,
        "--resume": options.resume is not None,
        "--session": options.session is not None,
        "--load": options.load is not None,
    }
    given = [name for name, wanted in chosen.items() if wanted]
    if len(given) > 1 and given != ["--session", "--load"]:
        raise UsageError(f"{given[0]} and {given[1]} exclude each other", fix="give one of them")
    if not options.log and any(name != "--load" for name in given):
        raise UsageError(f"{given[0]} and --no-log exclude each other", fix="leave one of them out")
    if options.save is not None and options.save != options.load:
        from llmcli.ui.export import check_target

        check_target(options.save)


def open_session(options: SessionOptions, notes: "Notes") -> tuple["SessionLog", "SavedChat | None"]:
    """The log of the chat, and the saved chat that it begins with.

    Raises:
        UsageError: there is no such session or file, or it can not be read.
    """
    from llmcli.ui import export
    from llmcli.ui.session_commands import resumed_notice
    from llmcli.ui.session_log import SessionLog
    from llmcli.ui.session_records import ChatSetup, SavedChat

    store = session_store() if options.log else None
    log = SessionLog(store, notes)
    saved: SavedChat | None = None
    session_id: str | None = None
    if store is not None:
        session_id = _pick(store, notes) if options.resume == "" else _choose(options, store)
    if session_id is not None:
        saved = log.resume(session_id)
        notes.dim(resumed_notice(f"session {session_id}", [turn.user for turn in saved.turns]))
    elif options.session is not None:
        log.begin(options.session)
    if options.load is not None:
        if saved is not None and saved.turns:
            raise UsageError(
                f"session {session_id} has begun, --load would replace it", fix="use another --session NAME"
            )
        saved = export.read(options.load, ChatSetup(""))
        if saved.setup.model:
            notes.dim(f"that chat was with {quote(saved.setup.model)}")
        # Whoever wrote the file chooses neither a download nor the server that gets the key.
        saved = SavedChat(replace(saved.setup, model="", revision=None, url=None), saved.turns)
        notes.dim(resumed_notice(quote(str(options.load)), [turn.user for turn in saved.turns]))
    return log, saved


def save_at_the_end(state: "ChatState", options: SessionOptions) -> None:
    """Write the file of --save; what goes wrong with it is told, for the program ends in another way."""
    from llmcli.ui import export

    if options.save is None or not state.conversation.turns:
        return
    try:
        export.write(state.saved(), options.save, replace=True)
    except LLMCliError as error:
        state.notes.error(error)


def _choose(options: SessionOptions, store: "SessionStore") -> str | None:
    """The id of the session that the options name."""
    if options.latest:
        return store.latest()
    if options.resume:
        return store.find(options.resume)
    if options.session is not None and store.exists(options.session):
        return options.session
    return None


def _pick(store: "SessionStore", notes: "Notes") -> str:
    """Ask which session is meant."""
    from llmcli.ui.session_commands import session_table

    listed = store.list()[:MAX_LISTED]
    if not listed:
        raise UsageError("there is no saved session", fix="start a chat without --resume")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "--resume needs an ID where nobody can choose",
            fix="llmcli sessions list shows them, --continue takes the latest",
        )
    notes.say(session_table(listed, time.time(), width=notes.width))
    while True:
        notes.say(f"which one? 1 to {len(listed)}, or an id (Enter takes 1)")
        try:
            words = input().strip() or "1"
        except EOFError:
            raise UsageError("no session was chosen", fix="--continue takes the latest") from None
        try:
            return store.find(words)
        except UsageError as error:
            notes.error(error)
