"""`llmcli rm`: delete models from the hub's cache, after a look at what goes."""

import sys
from typing import Annotated

import typer

from llmcli.cli.completion import complete_model
from llmcli.config import human_bytes
from llmcli.errors import UsageError, quote
from llmcli.hub.cache import plan_deletion
from llmcli.hub.models import BUNDLED_NAME
from llmcli.hub.names import parse_hub_id
from llmcli.hub.settings import hub_settings


def rm(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="ID",
            show_default=False,
            autocompletion=complete_model,
            help="owner/name, or owner/name@revision for one.",
        ),
    ],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
) -> None:
    """Delete models from the hub's cache. Files that another revision shares stay.

    Examples:
        llmcli rm TheBloke/Llama-2-7B-Chat-AWQ
        llmcli rm owner/name@v1.0 --dry-run
    """
    if BUNDLED_NAME in models:
        raise UsageError(f"{BUNDLED_NAME} is a part of llmcli and can not be removed")
    hub_ids = [parse_hub_id(model) for model in models]
    deletion = plan_deletion(hub_ids, hub_settings(offline=True))
    for name, commit in deletion.commits:
        typer.echo(f"{quote(name)} {commit[:7]}", err=not dry_run)
    if dry_run:
        typer.echo(f"would free {human_bytes(deletion.freed)}")
        return
    if not yes:
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
