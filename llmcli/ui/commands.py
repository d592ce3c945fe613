"""The slash commands of a chat: one function each, one table for running, help and completion.

A command changes the `ChatState` and prints notes; what needs the session itself (leaving, a new answer) is
returned as an `Outcome`. Knows no terminal.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from llmcli.errors import RequestError, UsageError, quote
from llmcli.ui.nearest import did_you_mean
from llmcli.ui.parameters import SETTABLE, settable_name, show_value
from llmcli.ui.state import ChatState
from llmcli.ui.status import context_use, parameter_rows, table

BLOCK = '"""'
REMOVE = "-"
KEYS = (
    ("Enter", "send"),
    ("Alt-Enter, Ctrl-J", 'new line, as Shift-Enter where the terminal tells; or a block between """'),
    ("Up, Down, Ctrl-R", "messages sent before"),
    ("Ctrl-G", "write on in $VISUAL or $EDITOR"),
    ("Ctrl-T", "unfold and fold the thinking of the last answer"),
    ("Tab", "complete a command"),
    ("Ctrl-C", "stop the answer; clear the line; twice on an empty line: leave"),
    ("Ctrl-D", "leave, on an empty line"),
    ("Ctrl-L", "clear the screen"),
)


class Outcome(Enum):
    """What the session is to do after a command."""

    GO_ON = auto()
    EXIT = auto()
    REGENERATE = auto()


@dataclass(frozen=True, slots=True)
class Command:
    """One slash command; names are without the slash."""

    name: str
    arguments: str
    summary: str
    run: Callable[[ChatState, str], Outcome]
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.arguments}".rstrip()


@dataclass(frozen=True, slots=True)
class Message:
    """A line for the model."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A line for a slash command."""

    name: str
    argument: str


def parse_input(text: str) -> Message | Call | None:
    """Tell what a line is: a message, a command, or nothing.

    `/name` and `!name` are commands, `//` is a message that begins with a slash, and what stands between
    triple quotes is a message whatever it looks like.
    """
    stripped = text.strip()
    if stripped.startswith(BLOCK):
        block = stripped.removeprefix(BLOCK).removesuffix(BLOCK).strip("\n")
        return Message(block) if block.strip() else None
    if not stripped:
        return None
    if stripped.startswith("//"):
        return Message(stripped[1:])
    call = re.match(r"(?:/|!(?=[A-Za-z?]))(\S*)\s*(.*)", stripped, re.DOTALL)
    return Call(call[1].lower(), call[2].strip()) if call else Message(text.strip("\n"))


def find_command(name: str) -> Command:
    """The command with this name or alias.

    Raises:
        UsageError: there is none; the nearest name is told.
    """
    for command in COMMANDS:
        if name in command.names:
            return command
    names = [alias for command in COMMANDS for alias in command.names]
    near = did_you_mean(name, names, "/")
    hint = "/help lists the commands; begin with // to send a message that starts with a slash"
    raise UsageError(f"unknown command /{quote(name, 40)}", fix=f"{near} {hint}".strip())


def complete(text: str) -> Iterator[tuple[str, str, int]]:
    """Ways to go on with a line: (text, explanation, number of typed characters that the text replaces)."""
    if not text.startswith("/") or "\n" in text:
        return
    head, space, word = text.partition(" ")
    if not space:
        for command in COMMANDS:
            for name in command.names:
                if f"/{name}".startswith(head):
                    yield f"/{name}", command.summary, len(head)
    elif " " not in word:
        choices = {"/set": (*SETTABLE, "stats"), "/help": [command.name for command in COMMANDS]}.get(
            head, ()
        )
        for choice in choices:
            if choice.startswith(word):
                yield choice, "", len(word)


def _help(state: ChatState, argument: str) -> Outcome:
    if argument:
        command = find_command(argument.lstrip("/!").lower())
        aliases = f" (also {', '.join('/' + name for name in command.aliases)})" if command.aliases else ""
        state.notes.say(f"{command.usage}{aliases}\n{command.summary}")
    else:
        rows = [(command.usage, command.summary) for command in COMMANDS]
        state.notes.say(table([*rows, ("", ""), *KEYS]))
    return Outcome.GO_ON


def _clear(state: ChatState, argument: str) -> Outcome:
    state.conversation.clear()
    state.notes.dim("new conversation" + (" (the system prompt stays)" if state.conversation.system else ""))
    return Outcome.GO_ON


def _system(state: ChatState, argument: str) -> Outcome:
    if not argument:
        state.notes.say(state.conversation.system or "no system prompt; set one with /system TEXT")
        return Outcome.GO_ON
    state.conversation.system = None if argument == REMOVE else argument
    state.notes.dim(
        "system prompt removed" if argument == REMOVE else "system prompt set, from the next message on"
    )
    return Outcome.GO_ON


def _set(state: ChatState, argument: str) -> Outcome:
    argument = re.sub(r"^parameter\s+", "", argument)
    name, _, value = argument.partition(" ")
    if name == "system":
        return _system(state, value.strip())
    if name == "stats":
        return _set_stats(state, value.strip().lower())
    if not name:
        rows = parameter_rows(state.parameters.in_force(state.backend().generation_defaults))
        state.notes.say(table([*rows, ("stats", "on" if state.show_stats else "off")]))
        return Outcome.GO_ON
    name = settable_name(name)
    if value.strip():
        state.parameters.set(name, value)
    in_force = {entry.name: entry for entry in state.parameters.in_force(state.backend().generation_defaults)}
    state.notes.dim(f"{name} = {show_value(in_force[name].value)} ({in_force[name].origin})")
    return Outcome.GO_ON


def _set_stats(state: ChatState, value: str) -> Outcome:
    if value and value not in ("on", "off"):
        raise UsageError(f"stats is on or off, got {quote(value, 40)}")
    if value:
        state.show_stats = value == "on"
    state.notes.dim(f"stats = {'on' if state.show_stats else 'off'}")
    return Outcome.GO_ON


def _status(state: ChatState, argument: str) -> Outcome:
    backend = state.backend()
    rows = backend.describe()
    rows.append(("conversation", _conversation(state, backend.config.max_model_len)))
    if not backend.generation_defaults:
        rows.append(("sampling defaults", "the model has no generation_config.json with any"))
    rows += parameter_rows(state.parameters.in_force(backend.generation_defaults))
    state.notes.say(table(rows))
    return Outcome.GO_ON


def _conversation(state: ChatState, max_model_len: int) -> str:
    conversation = state.conversation
    turns = "1 turn" if len(conversation.turns) == 1 else f"{len(conversation.turns)} turns"
    dropped = f", the oldest {conversation.num_dropped} left out" if conversation.num_dropped else ""
    return f"{turns}{dropped}, {context_use(conversation.used_tokens, max_model_len)}"


def _regen(state: ChatState, argument: str) -> Outcome:
    if not state.conversation.turns:
        raise RequestError("there is no answer yet", fix="send a message first")
    return Outcome.REGENERATE


def _undo(state: ChatState, argument: str) -> Outcome:
    if argument and not (argument.isascii() and argument.isdigit() and int(argument) > 0):
        raise UsageError(f"/undo takes the number of turns to take back, got {quote(argument, 40)}")
    taken = state.conversation.undo(int(argument or 1))
    if not taken:
        raise RequestError("there is nothing to undo")
    first = quote(taken[0].user, 60)
    state.notes.dim(f"took back {len(taken)} turn{'s' if len(taken) > 1 else ''}, from “{first}” on")
    return Outcome.GO_ON


def _exit(state: ChatState, argument: str) -> Outcome:
    return Outcome.EXIT


COMMANDS: tuple[Command, ...] = (
    Command("help", "[COMMAND]", "List the commands and keys, or explain one.", _help, ("?",)),
    Command("clear", "", "Start a new conversation; the system prompt stays.", _clear, ("new",)),
    Command("system", "[TEXT | -]", "Show, set or (with -) remove the system prompt.", _system),
    Command(
        "set", "[NAME [VALUE]]", "Show or set a sampling parameter, or stats on/off; default resets.", _set
    ),
    Command("status", "", "Show the model, memory, context and parameters.", _status),
    Command("regen", "", "Answer the last message again, with a new seed.", _regen, ("retry",)),
    Command("undo", "[N]", "Take back the last N messages and their answers (1).", _undo),
    Command("exit", "", "Leave.", _exit, ("bye", "quit")),
)
