"""The slash commands of a chat: how a line is read, and the one table for running, help and completion.

What the commands do is in the other modules of this folder, by what they are about; what one is,
in `command.py`. Knows no terminal.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from llmcli.errors import UsageError, quote
from llmcli.nearest import did_you_mean
from llmcli.ui.commands.command import Command, Outcome
from llmcli.ui.commands.history import HISTORY_COMMANDS
from llmcli.ui.commands.look import LOOK_COMMANDS
from llmcli.ui.commands.session import SESSION_COMMANDS
from llmcli.ui.commands.setting import SETTING_COMMANDS, SWITCHES
from llmcli.ui.commands.text import TEXT_COMMANDS
from llmcli.ui.parameters import SETTABLE
from llmcli.ui.state import ChatState

BLOCK = '"""'
MAX_PATHS = 50
KEYS = (
    ("Enter", "send"),
    ("Alt-Enter, Ctrl-J", 'new line, as Shift-Enter where the terminal tells; or a block between """'),
    ("Up, Down, Ctrl-R", "messages sent before"),
    ("Esc Esc", "edit the last message"),
    ("Ctrl-G", "write on in $VISUAL or $EDITOR"),
    ("Ctrl-T", "unfold and fold the thinking of the last answer"),
    ("Tab", "complete a command"),
    ("Ctrl-C", "stop the answer; clear the line; twice on an empty line: leave"),
    ("Ctrl-D", "leave, on an empty line"),
    ("Ctrl-L", "clear the screen"),
)


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


def as_input(text: str) -> str:
    """What to type so that `text` is sent as it is."""
    return text if parse_input(text) == Message(text) else f"{BLOCK}\n{text}\n{BLOCK}"


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
    elif head in ("/read", "/file", "/json"):
        if head == "/json" and "off".startswith(word):
            yield "off", "", len(word)
        yield from ((path, "", len(word)) for path in _paths(word))
    elif " " not in word:
        yield from ((choice, "", len(word)) for choice in _choices(head) if choice.startswith(word))


def _choices(head: str) -> Iterable[str]:
    """The words that a command takes."""
    return {
        "/set": (*SETTABLE, *SWITCHES, "system"),
        "/help": [command.name for command in COMMANDS],
        "/show": ("info", "template", "license", "params"),
        "/think": ("on", "off", "default", "fold", "show", "hide", "budget"),
        "/logprobs": ("on", "off"),
        "/regex": ("off",),
        "/copy": ("code",),
    }.get(head, ())


def _paths(word: str) -> Iterator[str]:
    """Files and folders that begin with `word`; hidden ones only when asked for."""
    folder, beginning = os.path.split(word)
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError:
        return
    fitting = [(name, is_dir) for name, is_dir in found if name.startswith(beginning)]
    for name, is_dir in fitting[:MAX_PATHS]:
        if beginning or not name.startswith("."):
            yield os.path.join(folder, name) + ("/" if is_dir else "")


def _help(state: ChatState, argument: str) -> Outcome:
    words = argument.lower().split()
    if words == ["shortcuts"]:
        state.notes.table(KEYS)
    elif words:
        command = find_command(words[0].lstrip("/!"))
        aliases = f" (also {', '.join('/' + name for name in command.aliases)})" if command.aliases else ""
        state.notes.say(f"{command.usage}{aliases}\n{command.summary}")
    else:
        rows = [(command.usage, command.summary) for command in COMMANDS]
        state.notes.table([*rows, ("", ""), *KEYS])
    return Outcome.GO_ON


def _exit(state: ChatState, argument: str) -> Outcome:
    return Outcome.EXIT


COMMANDS: tuple[Command, ...] = (
    Command("help", "[COMMAND | shortcuts]", "List the commands and keys, or explain one.", _help, ("?",)),
    *HISTORY_COMMANDS,
    *TEXT_COMMANDS,
    *SESSION_COMMANDS,
    *SETTING_COMMANDS,
    *LOOK_COMMANDS,
    Command("exit", "", "Leave.", _exit, ("bye", "quit")),
)
