"""The options that only `llmcli chat` takes, in groups. Knows nothing of what is done with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from llmcli.cli.options import OPTIONAL_VALUE, human_number
from llmcli.errors import UsageError

SESSION = "Session options"
ANSWER = "Answer options"
SERVER = "Server options"


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
        from llmcli.cli.saved_chats import unnamed_model

        return unnamed_model(typed, default)


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """What goes into an answer besides the prompt, and how it is shown."""

    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="PATH",
            show_default=False,
            help="Add the text of a file to the (first) prompt; may be repeated.",
            rich_help_panel=ANSWER,
        ),
    ] = None
    prefill: Annotated[
        str,
        typer.Option(
            "--prefill",
            metavar="TEXT",
            show_default=False,
            help="Make every answer begin with TEXT.",
            rich_help_panel=ANSWER,
        ),
    ] = ""
    think: Annotated[
        bool | None,
        typer.Option(
            "--think/--no-think",
            show_default=False,
            help="Have a model that can think do so or not (also --reasoning on|off); else as its template likes.",
            rich_help_panel=ANSWER,
        ),
    ] = None
    thinking_budget: Annotated[
        int | None,
        typer.Option(
            "--thinking-budget",
            metavar="N",
            parser=human_number,
            show_default=False,
            help="Close the reasoning after N tokens, so that the answer begins.",
            rich_help_panel=ANSWER,
        ),
    ] = None
    show_thinking: Annotated[
        bool | None,
        typer.Option(
            "--show-thinking/--hide-thinking",
            show_default=False,
            help="Leave reasoning on the screen, and write it into a pipe, or never show it; else it is folded.",
            rich_help_panel=ANSWER,
        ),
    ] = None
    overflow: Annotated[
        Literal["drop", "error"],
        typer.Option(
            "--overflow",
            help="When the context is full: leave out the oldest turns, or refuse.",
            rich_help_panel=ANSWER,
        ),
    ] = "drop"
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print a single answer as a JSON object.", rich_help_panel=ANSWER),
    ] = False
    stats: Annotated[
        bool | None,
        typer.Option(
            "--stats/--no-stats",
            show_default=False,
            help="Numbers after each answer; else on a terminal.",
            rich_help_panel=ANSWER,
        ),
    ] = None
    markdown: Annotated[
        bool | None,
        typer.Option(
            "--markdown/--plain",
            show_default=False,
            help="Render Markdown, or show the text as it is; else rendered on a terminal.",
            rich_help_panel=ANSWER,
        ),
    ] = None
    wrap: Annotated[
        bool | None,
        typer.Option(
            "--wrap/--no-wrap",
            show_default=False,
            help="Break lines of plain text between words; else on a terminal.",
            rich_help_panel=ANSWER,
        ),
    ] = None

    def check(self) -> None:
        """Raise a UsageError for a value that leaves nothing of what it limits."""
        if self.thinking_budget == 0:
            raise UsageError("--thinking-budget must be at least 1", fix="--no-think has a model not think")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Which server runs the model, if it is not to run here."""

    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            show_default=False,
            help="Chat with a model of an OpenAI-compatible server, such as http://127.0.0.1:8000/v1.",
            rich_help_panel=SERVER,
        ),
    ] = None
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            show_default=False,
            help="The server's key; better in LLMCLI_API_KEY, as others can see a command line.",
            rich_help_panel=SERVER,
        ),
    ] = None
