"""Slash commands that change what was said: each is cheap, as the model keeps what it has computed of the rest.

Used by `table.py`.
"""

from llmcli.errors import RequestError, quote
from llmcli.ui.commands.command import Command, Outcome, turn_count
from llmcli.ui.state import ChatState

REMOVE = "-"


def clear(state: ChatState, argument: str) -> Outcome:
    """Start a new conversation."""
    state.conversation.clear()
    state.attachments.clear()
    state.notes.dim("new conversation" + (" (the system prompt stays)" if state.conversation.system else ""))
    return Outcome.GO_ON


def system(state: ChatState, argument: str) -> Outcome:
    """Show, set or remove the system prompt."""
    if not argument:
        state.notes.say(state.conversation.system or "no system prompt; set one with /system TEXT")
        return Outcome.GO_ON
    state.conversation.system = None if argument == REMOVE else argument
    state.notes.dim(
        "system prompt removed" if argument == REMOVE else "system prompt set, from the next message on"
    )
    return Outcome.GO_ON


def regen(state: ChatState, argument: str) -> Outcome:
    """Have the last message answered again."""
    _require_turn(state)
    return Outcome.REGENERATE


def go_on(state: ChatState, argument: str) -> Outcome:
    """Have the last answer gone on with."""
    _require_turn(state)
    if not state.conversation.turns[-1].answer:
        raise RequestError(
            "the last answer is empty, there is nothing to go on with", fix="/regen answers anew"
        )
    return Outcome.CONTINUE


def undo(state: ChatState, argument: str) -> Outcome:
    """Take back turns."""
    count = turn_count(argument, "undo")
    taken = state.conversation.undo(count)
    if not taken:
        raise RequestError("there is nothing to undo")
    first = quote(taken[0].user, 60)
    state.notes.dim(f"took back {len(taken)} turn{'s' if len(taken) > 1 else ''}, from “{first}” on")
    return Outcome.GO_ON


def edit(state: ChatState, argument: str) -> Outcome:
    """Put an earlier message into the prompt; nothing is taken back before it is sent."""
    count = turn_count(argument, "edit")
    turns = state.conversation.turns
    if count > len(turns):
        raise RequestError(
            f"there is no message {count} back, there are {len(turns)}"
            if turns
            else "there is no message yet",
            fix="/edit changes the last one" if turns else "send one first",
        )
    state.draft, state.edited_turns = turns[-count].user, count
    state.notes.dim("change the message and send it; sent empty, everything stays as it is")
    return Outcome.GO_ON


def fork(state: ChatState, argument: str) -> Outcome:
    """Go on in a new session that begins with this conversation."""
    _require_turn(state)
    before = state.log.session_id
    session_id = state.log.fork(state.saved(), argument or None)
    state.notes.dim(f"now in session {session_id}; {before or 'the one before'} stays as it was")
    return Outcome.GO_ON


def _require_turn(state: ChatState) -> None:
    if not state.conversation.turns:
        raise RequestError("there is no answer yet", fix="send a message first")


HISTORY_COMMANDS: tuple[Command, ...] = (
    Command("clear", "", "Start a new conversation; the system prompt stays.", clear, ("new",)),
    Command("regen", "", "Answer the last message again, with a new seed.", regen, ("retry",)),
    Command("continue", "", "Go on with an answer that was cut or stopped.", go_on),
    Command("undo", "[N]", "Take back the last N messages and their answers (1).", undo),
    Command("edit", "[N]", "Change the message N back (the last), and have it answered anew.", edit),
    Command("fork", "[NAME]", "Go on in a new session; this one stays as it is.", fork),
    Command("system", "[TEXT | -]", "Show, set or (with -) remove the system prompt.", system),
)
