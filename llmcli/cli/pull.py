"""`llmcli pull`: fetch a model from the hub, after a look at what it is. The work is in `hub/`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmcli.cli.options import ModelOptions, Quiet
from llmcli.config import EngineConfig, human_bytes
from llmcli.errors import ModelNotRunnableError, UsageError, quote
from llmcli.hub.settings import MAX_WORKERS, HubSettings, hub_settings

if TYPE_CHECKING:
    from llmcli.hub.names import HubId
    from llmcli.hub.remote import Patterns, RemoteSnapshot

MOST_WORKERS = 64
FILES = "What is fetched"
HUB = "Hub options"


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Which files, and where they go."""

    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            metavar="GLOB",
            rich_help_panel=FILES,
            help="Only files that match, of all that there are; may be repeated.",
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="GLOB",
            rich_help_panel=FILES,
            help="No files that match; may be repeated.",
        ),
    ] = None
    local_dir: Annotated[
        Path | None,
        typer.Option(
            "--local-dir",
            metavar="DIR",
            rich_help_panel=FILES,
            help="Put plain files into this folder, not into the cache.",
        ),
    ] = None

    def patterns(self) -> "Patterns":
        """The globs."""
        from llmcli.hub.remote import Patterns

        return Patterns(tuple(self.include or ()), tuple(self.exclude or ()))


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """How the hub is asked."""

    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TOKEN",
            rich_help_panel=HUB,
            help="For gated and private models, instead of HF_TOKEN and the saved login; never shown.",
        ),
    ] = None
    max_workers: Annotated[
        int,
        typer.Option(
            "--max-workers",
            metavar="N",
            min=1,
            max=MOST_WORKERS,
            rich_help_panel=HUB,
            help="Files that are fetched at once.",
        ),
    ] = MAX_WORKERS


def pull(
    model: Annotated[
        str, typer.Argument(metavar="ID", show_default=False, help="owner/name or owner/name@revision.")
    ],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell: the files, their sizes, whether it fits.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash all files again, and fetch the damaged ones anew.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Fetch it even if llmcli can not run it.")
    ] = False,
    quiet: Quiet = False,
    options: ModelOptions,
    files: FileOptions,
    hub: HubOptions,
) -> None:
    """Fetch a model from the Hugging Face hub.

    It goes into the hub's own cache, and the folder is printed. First tells what it is, its licence, and whether it
    fits on this machine. Fetches only what llmcli reads: settings, tokenizer, template, safetensors weights. What has
    arrived is kept, so that the same command resumes.

    Examples:
        llmcli pull TheBloke/Llama-2-7B-Chat-AWQ --dry-run
        llmcli pull Qwen/Qwen3-0.6B --local-dir ./qwen
    """
    from llmcli.hub.models import BUNDLED_NAME
    from llmcli.hub.names import parse_hub_id
    from llmcli.hub.remote import list_remote

    if model == BUNDLED_NAME:
        raise UsageError(f"{BUNDLED_NAME} comes with llmcli; there is nothing to fetch", fix="llmcli chat")
    hub_id = parse_hub_id(model, options.revision)
    settings = hub_settings(
        offline=options.offline, token=hub.token, progress=not quiet, max_workers=hub.max_workers
    )
    say = _silent if quiet else _say
    if settings.offline:
        typer.echo(_offline(hub_id, settings, files, verify, say))
        return
    remote = list_remote(hub_id, settings, files.patterns())
    tell = typer.echo if dry_run else say
    for line in _plan(remote, settings, files.local_dir, listed=dry_run):
        tell(line)
    if not remote.partial and (dry_run or _weights_come(remote, settings)):
        _tell_verdict(remote, settings, tell, force=force)
    if not dry_run:
        typer.echo(_fetch(remote, settings, files.local_dir, say, anew=verify))


def _weights_come(remote: "RemoteSnapshot", settings: HubSettings) -> bool:
    from llmcli.hub.download import files_to_fetch, is_weights

    return any(is_weights(file) for file in files_to_fetch(remote, settings))


def _fetch(
    remote: "RemoteSnapshot",
    settings: HubSettings,
    local_dir: Path | None,
    say: Callable[[str], None],
    *,
    anew: bool,
) -> Path:
    """The folder with the model, in the cache or where it was wanted."""
    from llmcli.hub.download import fetch
    from llmcli.hub.local_folder import fetch_to_folder

    if local_dir is not None:
        return fetch_to_folder(remote, local_dir, settings, say)
    return fetch(remote, settings, say, anew=anew)


def _offline(
    hub_id: "HubId", settings: HubSettings, files: FileOptions, verify: bool, say: Callable[[str], None]
) -> Path:
    """The folder in the cache: all that there is to do without a network."""
    from llmcli.hub.download import obtain, verify_snapshot
    from llmcli.hub.remote import Patterns

    if files.patterns() != Patterns() or files.local_dir is not None:
        raise UsageError(
            "--include, --exclude and --local-dir need the hub, and the network is off",
            fix="leave out --offline, and unset HF_HUB_OFFLINE",
        )
    folder = obtain(hub_id, settings, say)
    return verify_snapshot(folder, hub_id, settings, say, anew=True) if verify else folder


def _plan(
    remote: "RemoteSnapshot", settings: HubSettings, local_dir: Path | None, *, listed: bool
) -> list[str]:
    """What will come, where it goes and under which terms; with one line for each file if `listed`."""
    from llmcli.hub.download import blob_path, bytes_to_fetch, files_to_fetch
    from llmcli.hub.fetching import free_space

    missing = set(files_to_fetch(remote, settings))
    lines = []
    if listed:
        width = max(len(file.name) for file in remote.files)
        lines = [
            f"{file.name:<{width}}  {human_bytes(file.size):>9}{'' if file in missing else '  in the cache'}"
            for file in remote.files
        ]
    skipped = remote.num_skipped
    others = f"; {skipped} other{'' if skipped == 1 else 's'} not needed" if skipped else ""
    where = local_dir or blob_path(remote, remote.files[0], settings).parent
    page = f"{settings.endpoint}/{remote.hub_id.repo}"
    gate = f"; gated: access is given at {page}" if remote.gate else ""
    return [
        *lines,
        f"{remote.hub_id} at {remote.commit[:7]}: {len(remote.files)} files, {human_bytes(remote.size)}{others}",
        f"licence: {remote.licence or 'not named'}{gate}",
        f"to fetch: {human_bytes(bytes_to_fetch(remote, settings))}; free on disk: {human_bytes(free_space(where))}",
    ]


def _tell_verdict(
    remote: "RemoteSnapshot", settings: HubSettings, tell: Callable[[str], None], *, force: bool
) -> None:
    """What it is and whether it fits; refuses what llmcli can not run, unless forced."""
    from llmcli.cli.verdict import preview

    try:
        seen = preview(remote, settings, EngineConfig())
    except ModelNotRunnableError as error:
        if not force:
            fix = f"{error.fix}; --force fetches it all the same" if error.fix else "--force fetches it"
            raise type(error)(error.what, why=error.why, fix=fix) from None
        tell(f"can not run here: {quote(error.what, 400)}")
        return
    for line in seen.lines(remote, settings):
        tell(line)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _silent(line: str) -> None:
    pass
