"""Which saved chat `llmcli chat` goes on with, and where it leaves one. Called by `chat.py`."""

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from llmcli.cli.chat_options import SessionOptions
from llmcli.cli.saved_chats import named_session, session_store
from llmcli.errors import LLMCliError, UsageError, quote

if TYPE_CHECKING:
    from llmcli.ui.notes import Notes
    from llmcli.ui.sessions.log import SessionLog
    from llmcli.ui.sessions.records import SavedChat
    from llmcli.ui.sessions.store import SessionStore
    from llmcli.ui.state import ChatState

MAX_LISTED = 15


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
        from llmcli.ui.sessions.export import check_target

        check_target(options.save)


def open_session(options: SessionOptions, notes: "Notes") -> tuple["SessionLog", "SavedChat | None"]:
    """The log of the chat, and the saved chat that it begins with.

    Raises:
        UsageError: there is no such session or file, or it can not be read.
    """
    from llmcli.ui.commands.session import resumed_notice
    from llmcli.ui.sessions import export
    from llmcli.ui.sessions.log import SessionLog
    from llmcli.ui.sessions.records import ChatSetup, SavedChat

    store = session_store() if options.log else None
    log = SessionLog(store, notes)
    saved: SavedChat | None = None
    session_id: str | None = None
    if store is not None:
        session_id = (
            _pick(store, notes)
            if options.resume == ""
            else named_session(store, latest=options.latest, resume=options.resume, session=options.session)
        )
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
    from llmcli.ui.sessions import export

    if options.save is None or not state.conversation.turns:
        return
    try:
        export.write(state.saved(), options.save, replace=True)
    except LLMCliError as error:
        state.notes.error(error)


def _pick(store: "SessionStore", notes: "Notes") -> str:
    """Ask which session is meant."""
    from llmcli.ui.commands.session import session_table

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
