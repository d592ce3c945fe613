"""`llmcli rm`: delete models from the hub's cache, after a look at what goes."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from llmcli.cli.completion import complete_model
from llmcli.config import human_bytes
from llmcli.errors import UsageError, quote

if TYPE_CHECKING:
    from llmcli.hub.deletion import Deletion

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")]


def rm(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="ID",
            show_default=False,
            autocompletion=complete_model,
            help="owner/name, owner/name@revision for one revision, or a glob such as 'owner/*'.",
        ),
    ],
    *,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete models from the hub's cache. Files that another revision shares stay.

    Examples:
        llmcli rm TheBloke/Llama-2-7B-Chat-AWQ
        llmcli rm 'TheBloke/*' --dry-run
    """
    from llmcli.hub.cache import find_cached_ids
    from llmcli.hub.deletion import plan_deletion
    from llmcli.hub.models import BUNDLED_NAME
    from llmcli.hub.settings import hub_settings

    if BUNDLED_NAME in models:
        raise UsageError(f"{BUNDLED_NAME} is a part of llmcli and can not be removed")
    for model in models:
        if os.path.isdir(model):
            raise UsageError(
                f"{quote(model)} is a folder of your own; llmcli rm deletes from the hub's cache only",
                fix=f"delete it yourself, with: rm -r {quote(model)}",
            )
    settings = hub_settings(offline=True)
    deletion = plan_deletion(find_cached_ids(models, settings), settings)
    carry_out(deletion, yes=yes, dry_run=dry_run)


def carry_out(deletion: "Deletion", *, yes: bool, dry_run: bool) -> None:
    """Show what goes, ask, and delete; the bytes are the result.

    Raises:
        UsageError: nobody is there to answer.
        OutputError: the file system does not let it.
    """
    for item in deletion.items:
        typer.echo(f"{quote(item.name)} {item.what}  {human_bytes(item.size)}", err=not dry_run)
    for name in deletion.busy:
        typer.echo(f"{quote(name)} is being fetched now, and stays", err=True)
    if dry_run:
        typer.echo(f"would free {human_bytes(deletion.freed)}")
        return
    if not yes and deletion.items:
        _ask(f"delete, and free {human_bytes(deletion.freed)}?")
    deletion.execute()
    typer.echo(f"freed {human_bytes(deletion.freed)}")


def _ask(question: str) -> None:
    """Go on only after a yes; exit code 1 otherwise, UsageError where nobody can answer."""
    if not sys.stdin.isatty():
        raise UsageError(f"{question} there is no terminal to answer on", fix="add --yes")
    if not typer.confirm(question, err=True):
        typer.echo("nothing is deleted", err=True)
        raise typer.Exit(1)
