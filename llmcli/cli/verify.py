"""`llmcli verify`: hash the cached models again. A download is checked once, by itself; disks may forget later."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmcli.cli.completion import complete_model
from llmcli.cli.options import Quiet
from llmcli.errors import ItemsFailedError, UsageError, quote

if TYPE_CHECKING:
    from llmcli.hub.names import HubId
    from llmcli.hub.settings import HubSettings


def verify(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID",
            show_default=False,
            autocompletion=complete_model,
            help="owner/name, owner/name@revision or a glob such as 'owner/*'; all cached models if left out.",
        ),
    ] = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Find damaged files of cached models, and remove them.

    Every file is compared with the hash that the hub named. Exit code 3 if there were any, or if a copy lacks files;
    `llmcli pull` fetches them anew.

    Examples:
        llmcli verify
        llmcli verify 'TheBloke/*'
    """
    from llmcli.hub.cache import cached_models, files_of, find_cached_ids
    from llmcli.hub.models import BUNDLED_NAME
    from llmcli.hub.names import HubId
    from llmcli.hub.settings import hub_settings

    if BUNDLED_NAME in (models or ()):
        raise UsageError(f"{BUNDLED_NAME} is a part of llmcli, not of the hub's cache")
    settings = hub_settings(offline=True)
    every = (HubId(model.name) for model in cached_models(settings) if model.num_revisions)
    meant = find_cached_ids(models, settings) if models else list(every)
    files = files_of(meant, settings)
    notice = _silent if quiet else _say
    damaged = [
        quote(str(hub_id)) for hub_id in meant if not _is_right(hub_id, files[hub_id], settings, notice)
    ]
    if damaged:
        raise ItemsFailedError(
            f"{len(damaged)} of {len(meant)} models are damaged: {', '.join(damaged)}",
            why="damaged files are removed",
            fix=f"llmcli pull {damaged[0]} fetches what is missing",
        )


def _is_right(
    hub_id: "HubId", files: list[Path] | None, settings: "HubSettings", notice: Callable[[str], None]
) -> bool:
    """Hash the files of a model, and tell; None is a copy in which some are missing."""
    from llmcli.hub.verify import damaged_files

    name = quote(str(hub_id))
    if files is None:
        typer.echo(f"{name}: files are missing")
        return False
    errors = damaged_files(files, settings.cache_dir, settings.marks_file, notice)
    for error in errors:
        typer.echo(f"{name}: {error.what}", err=True)
    state = f"{len(errors)} of {len(files)} files damaged" if errors else f"{len(files)} files are right"
    typer.echo(f"{name}: {state}")
    return not errors


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _silent(line: str) -> None:
    pass
