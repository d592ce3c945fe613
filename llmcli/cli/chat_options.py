"""Options that only `llmcli chat` takes, in groups; those of sessions are in `chat_session.py`."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

ANSWER = "Answer options"
SERVER = "Server options"


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
            help="Have a model that can think do so or not; else as its template likes.",
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
