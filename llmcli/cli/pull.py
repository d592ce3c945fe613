"""`llmcli pull`: fetch a model into the hub's cache. The work is in `hub/download.py`."""

from typing import Annotated

import typer

from llmcli.cli.options import ModelOptions, Quiet
from llmcli.config import human_bytes
from llmcli.errors import UsageError
from llmcli.hub.download import (
    RemoteSnapshot,
    bytes_to_fetch,
    fetch,
    files_to_fetch,
    free_space,
    list_remote,
    obtain,
)
from llmcli.hub.models import BUNDLED_NAME
from llmcli.hub.names import parse_hub_id
from llmcli.hub.settings import HubSettings, hub_settings


def pull(
    model: Annotated[
        str, typer.Argument(metavar="ID", show_default=False, help="owner/name or owner/name@revision.")
    ],
    *,
    options: ModelOptions,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files and their sizes.")] = False,
    quiet: Quiet = False,
) -> None:
    """Fetch a model from the Hugging Face hub into its cache; prints the folder.

    Only what llmcli reads: settings, tokenizer, template, safetensors weights. What has arrived is kept, so
    that the same command resumes.

    Examples:
        llmcli pull TheBloke/Llama-2-7B-Chat-AWQ
        llmcli pull owner/name@v1.0 --dry-run
    """
    if model == BUNDLED_NAME:
        raise UsageError(f"{BUNDLED_NAME} comes with llmcli; there is nothing to fetch", fix="llmcli chat")
    hub_id = parse_hub_id(model, options.revision)
    settings = hub_settings(offline=options.offline, progress=not quiet)

    def tell(line: str) -> None:
        if not quiet:
            typer.echo(line, err=True)

    if settings.offline:
        typer.echo(obtain(hub_id, settings, tell))
        return
    remote = list_remote(hub_id, settings)
    if dry_run:
        typer.echo("\n".join(_plan(remote, settings)))
        return
    for line in _plan(remote, settings):
        tell(line)
    typer.echo(fetch(remote, settings, tell))


def _plan(remote: RemoteSnapshot, settings: HubSettings) -> list[str]:
    """One line per file, then the sums and the free space."""
    missing = set(files_to_fetch(remote, settings))
    width = max(len(file.name) for file in remote.files)
    lines = [
        f"{file.name:<{width}}  {human_bytes(file.size):>9}{'' if file in missing else '  in the cache'}"
        for file in remote.files
    ]
    to_come = human_bytes(bytes_to_fetch(remote, settings))
    return [
        *lines,
        f"{remote.hub_id} at {remote.commit[:7]}: {len(remote.files)} files, {human_bytes(remote.size)};"
        f" {remote.num_skipped} others not needed",
        f"to fetch: {to_come}; free on disk: {human_bytes(free_space(settings))}",
    ]
