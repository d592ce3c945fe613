"""`llmcli verify`: hash the cached models again. A download is checked once, by itself; disks may forget later."""

from typing import Annotated

import typer

from llmcli.cli.options import Quiet
from llmcli.errors import ItemsFailedError, UsageError, quote
from llmcli.hub.cache import absent, cached_repos, find_cached_ids, revisions_meant
from llmcli.hub.models import BUNDLED_NAME
from llmcli.hub.names import HubId
from llmcli.hub.settings import hub_settings
from llmcli.hub.verify import damaged_files


def verify(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID",
            show_default=False,
            help="owner/name, owner/name@revision or a glob such as 'owner/*'; all cached models if left out.",
        ),
    ] = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Compare every file of cached models with the hash that the hub named. Damaged files are removed.

    Exit code 3 if there were any; `llmcli pull` fetches them anew.

    Examples:
        llmcli verify
        llmcli verify 'TheBloke/*'
    """
    if BUNDLED_NAME in (models or ()):
        raise UsageError(f"{BUNDLED_NAME} is a part of llmcli, not of the hub's cache")
    settings = hub_settings(offline=True)
    repos = {repo.repo_id: repo for repo in cached_repos(settings)}
    num_files, num_damaged = 0, 0
    for hub_id in find_cached_ids(models, settings) if models else map(HubId, sorted(repos)):
        revisions = revisions_meant(hub_id, repos[hub_id.repo]) if hub_id.repo in repos else []
        if not revisions:
            raise absent(hub_id, settings)
        by_blob = {file.blob_path: file.file_path for revision in revisions for file in revision.files}
        files = sorted(by_blob.values())
        notice = _silent if quiet else _say
        errors = damaged_files(files, settings.cache_dir, settings.marks_file, notice)
        for error in errors:
            typer.echo(f"{quote(str(hub_id))}: {error.what}", err=True)
        num_files, num_damaged = num_files + len(files), num_damaged + len(errors)
        state = f"{len(errors)} of {len(files)} files damaged" if errors else f"{len(files)} files are right"
        typer.echo(f"{quote(str(hub_id))}: {state}")
    if num_damaged:
        raise ItemsFailedError(
            f"{num_damaged} of {num_files} files were damaged, and are removed",
            fix="fetch them again with `llmcli pull`",
        )


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _silent(line: str) -> None:
    pass
