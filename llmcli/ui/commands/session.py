"""Slash commands for saved chats: list them, go on with one, write this one to a file. Used by `table.py`."""

import os
import time
from pathlib import Path

from llmcli.errors import UsageError, quote
from llmcli.ui.commands.command import Command, Outcome
from llmcli.ui.hint_line import hint_line
from llmcli.ui.sessions import export
from llmcli.ui.sessions.store import SessionInfo
from llmcli.ui.state import ChatState
from llmcli.ui.status import table

MAX_LISTED = 20
NARROW = 60  # a narrower window has no room for age and number of turns
UNITS = (("day", 86400), ("hour", 3600), ("minute", 60))


def sessions(state: ChatState, argument: str) -> Outcome:
    """List the saved chats, the newest first."""
    listed = state.log.store.list()
    if not listed:
        state.notes.dim("there is no saved session yet")
        return Outcome.GO_ON
    state.notes.say(session_table(listed[:MAX_LISTED], time.time(), state.log.session_id, state.notes.width))
    more = len(listed) - MAX_LISTED
    if more > 0:
        state.notes.dim(f"and {more} older; llmcli sessions list shows all")
    return Outcome.GO_ON


def resume(state: ChatState, argument: str) -> Outcome:
    """Go on with a saved chat in the place of this one."""
    if not argument:
        sessions(state, "")
        state.notes.dim("/resume and an id, or the number before it, goes on with one")
        return Outcome.GO_ON
    session_id = state.log.store.find(argument)
    chat = state.log.resume(session_id)
    state.take_over(chat)
    state.notes.dim(resumed_notice(f"session {session_id}", [turn.user for turn in chat.turns]))
    if (chat.setup.model, chat.setup.url) != (state.backend.model.name, state.backend.model.url):
        state.notes.warn(
            f"that chat was with {quote(chat.setup.model)}; this is {quote(state.backend.name)}"
            f" (/model {quote(chat.setup.model)} changes it)"
        )
    return Outcome.GO_ON


def save(state: ChatState, argument: str) -> Outcome:
    """Write the chat to a file; without one, tell where it is kept anyway."""
    if not argument:
        state.notes.dim(f"session: {state.log.place}")
        return Outcome.GO_ON
    return _write(state, argument, ".jsonl")


def export_chat(state: ChatState, argument: str) -> Outcome:
    """Write the chat to a file in the format of its ending."""
    name = argument or f"{state.log.session_id or 'chat'}.md"
    return _write(state, name, ".md")


def _write(state: ChatState, name: str, ending: str) -> Outcome:
    if not state.conversation.turns:
        raise UsageError("there is nothing to write yet")
    path = Path(os.path.expanduser(name))
    path = path if path.suffix else path.with_name(path.name + ending)
    export.write(state.saved(), path)
    state.notes.dim(f"written to {quote(str(path))}")
    return Outcome.GO_ON


def resumed_notice(what: str, asked: list[str]) -> str:
    """Where a resumed chat stands."""
    if not asked:
        return f"{what}: no message yet"
    turns = "1 turn" if len(asked) == 1 else f"{len(asked)} turns"
    return f"{what}: {turns}, the last “{quote(' '.join(asked[-1].split()), 60)}”"


def session_table(
    listed: list[SessionInfo], now: float, current: str | None = None, width: int | None = None
) -> str:
    """Lines of number, id, age, turns and what was asked first, cut to `width` columns."""
    rows = []
    for number, info in enumerate(listed, 1):
        about = f"can not be read: {quote(info.problem, 60)}" if info.problem else info.title
        if width is None or width >= NARROW:
            about = f"{ago(now - info.modified):<15}  {info.turns:>3}  {about}"
        mark = "*" if info.id == current else " "
        rows.append((f"{number:>3}{mark} {info.id}", about))
    lines = table(rows).split("\n")
    return "\n".join(line if width is None else hint_line(line, width, ()) for line in lines)


def ago(seconds: float) -> str:
    """A span of time in words: '3 hours ago'."""
    for unit, length in UNITS:
        number = int(seconds // length)
        if number >= 1:
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"


SESSION_COMMANDS: tuple[Command, ...] = (
    Command("sessions", "", "List the saved chats.", sessions),
    Command("resume", "[ID]", "Go on with a saved chat.", resume),
    Command("save", "[FILE]", "Write this chat to a file; without one, tell where it is kept.", save),
    Command(
        "export", "[FILE.md|.json|.jsonl]", "Write this chat as Markdown, JSON or JSON lines.", export_chat
    ),
)
