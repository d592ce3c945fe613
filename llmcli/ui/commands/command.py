"""What a slash command is: its names, its help, the function that runs it, and what it asks of the session.

Knows no particular command; they are in the other modules of this folder, their table in `table.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from llmcli.errors import UsageError, quote
from llmcli.ui.state import ChatState

MAX_COUNT = 1_000_000


class Outcome(Enum):
    """What the session is to do after a command."""

    GO_ON = auto()
    EXIT = auto()
    REGENERATE = auto()
    CONTINUE = auto()
    READ_BLOCK = auto()


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
        """The name and its aliases."""
        return (self.name, *self.aliases)

    @property
    def usage(self) -> str:
        """How it is typed."""
        return f"/{self.name} {self.arguments}".rstrip()


def turn_count(argument: str, command: str) -> int:
    """The N of `/undo N`; 1 when it is left out.

    Raises:
        UsageError: not a positive number.
    """
    if argument and not (
        argument.isascii() and argument.isdigit() and len(argument) < 8 and 0 < int(argument) <= MAX_COUNT
    ):
        raise UsageError(f"/{command} takes a number of turns, got {quote(argument, 40)}")
    return int(argument or 1)


def on_or_off(argument: str, what: str) -> bool:
    """The value of a switch.

    Raises:
        UsageError: neither on nor off.
    """
    word = argument.strip().lower()
    if word not in ("on", "off"):
        raise UsageError(f"{what} is on or off, got {quote(argument, 40)}")
    return word == "on"
