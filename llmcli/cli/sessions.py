"""`llmcli sessions`: the saved chats of this user: list, show, remove, export. Opens no model."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmcli.cli.listing import Column, Form, print_listing
from llmcli.cli.options import ListingFormat
from llmcli.cli.saved_chats import session_store
from llmcli.errors import UsageError, quote

if TYPE_CHECKING:
    from llmcli.ui.sessions.records import SavedChat
    from llmcli.ui.sessions.store import SessionStore

Action = Literal["list", "show", "rm", "export"]
ENDINGS = {"md": ".md", "json": ".json", "jsonl": ".jsonl"}


def sessions(
    action: Annotated[
        Action, typer.Argument(metavar="[list|show|rm|export]", help="What to do; list, if left out.")
    ] = "list",
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...",
            show_default=False,
            help="Sessions: an id, the beginning of one, or a number of the list.",
        ),
    ] = None,
    *,
    export_as: Annotated[
        Literal["md", "json", "jsonl"], typer.Option("--as", help="Format of an export on stdout.")
    ] = "md",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default=False,
            help="Export into this file; its ending tells the format.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    form: ListingFormat = "auto",
) -> None:
    """List, show, remove or export saved chats.

    Examples:
        llmcli sessions
        llmcli sessions show 1
        llmcli sessions export 1 --as json
        llmcli sessions export 20261004 -o chat.md
        llmcli sessions rm 3 4
    """
    store, words = session_store(), list(ids or ())
    if action == "list":
        if words:
            raise UsageError(f"sessions list takes no id, got {quote(words[0], 40)}", fix="sessions show ID")
        _list(store, form)
        return
    if not words or (len(words) > 1 and action != "rm"):
        raise UsageError(
            f"sessions {action} takes one session, got {len(words)}", fix="llmcli sessions list shows them"
        )
    found = [store.find(word) for word in words]
    if action == "rm":
        _remove(store, list(dict.fromkeys(found)), yes=yes)
    elif action == "show":
        _print(store.read(found[0]), form if form in ENDINGS else "md")
    elif output is None:
        _print(store.read(found[0]), form if form in ENDINGS else export_as)
    else:
        from llmcli.ui.sessions.export import write

        write(store.read(found[0]), output)
        typer.echo(f"written to {quote(str(output))}", err=True)


def _list(store: "SessionStore", form: Form) -> None:
    from llmcli.ui.commands.session import ago

    listed, now = store.list(), time.time()
    columns = (
        Column("ID", lambda info: info.id),
        Column("CHANGED", lambda info: ago(now - info.modified)),
        Column("TURNS", lambda info: info.turns),
        Column("MODEL", lambda info: info.model.rsplit("/", 1)[-1] or "?"),
        Column(
            "ASKED FIRST", lambda info: f"can not be read: {info.problem}" if info.problem else info.title
        ),
    )
    if not listed and form in ("auto", "human"):
        typer.echo("no saved chats; llmcli chat saves each as it goes", err=True)
    else:
        print_listing(listed, columns, form, key="id")


def _remove(store: "SessionStore", found: list[str], *, yes: bool) -> None:
    if not yes:
        named = found[0] if len(found) == 1 else f"{len(found)} sessions"
        if not sys.stdin.isatty():
            raise UsageError("nobody is there to be asked", fix="--yes removes without asking")
        typer.confirm(f"remove {named}?", abort=True, err=True)
    for session_id in found:
        store.remove(session_id)
        typer.echo(f"removed {session_id}", err=True)


def _print(chat: "SavedChat", form: str) -> None:
    """Print a chat; on a terminal without the control characters that a model may have written."""
    from llmcli.text.sanitize import Sanitizer
    from llmcli.ui.sessions.export import FORMATS

    text = FORMATS[ENDINGS[form]](chat)
    typer.echo(Sanitizer().push(text) if sys.stdout.isatty() else text, nl=False)
