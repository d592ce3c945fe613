"""From a hub id to a folder in the hub's cache: what is there, what must come, and whether it is right.

Keeps huggingface_hub's documented cache layout, so that other tools share the files and nothing is stored twice.
Knows nothing of local folders or of the bundled model. Called by `hub/models.py` and by `llmcli pull`.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from llmcli.errors import CheckpointError, ModelUnavailableError
from llmcli.hub.failures import not_cached
from llmcli.hub.fetching import Notice, bytes_to_come, fetch_files
from llmcli.hub.folder import missing_files
from llmcli.hub.names import HubId
from llmcli.hub.remote import RemoteSnapshot, errors_of, list_remote, needed_files
from llmcli.hub.settings import HubSettings
from llmcli.hub.snapshot import drop_empty_folders, link, write_ref
from llmcli.hub.transfer import RemoteFile
from llmcli.hub.verify import verify_files

# Told what is about to be fetched when weights must come; may raise, and then nothing is fetched.
BeforeFetch = Callable[[RemoteSnapshot, HubSettings], None]
_COMMIT = re.compile(r"[0-9a-f]{40}")


def obtain(
    hub_id: HubId, settings: HubSettings, on_notice: Notice, before_fetch: BeforeFetch | None = None
) -> Path:
    """The folder of a model: from the cache where it is complete and fresh, from the hub otherwise.

    One small request tells whether a branch has moved; without a network the cached copy serves.

    Raises:
        ModelUnavailableError: not found, gated, offline and not cached, no space, or a fault of the hub.
        CheckpointError: the repository has no weights that llmcli reads, or a file does not have its hash.
    """
    cached, missing = find_cached(hub_id, settings)
    if settings.offline and (cached is None or missing):
        raise not_cached(hub_id, settings, missing)
    if cached is not None and not missing and (settings.offline or hub_id.is_commit):
        return verify_snapshot(cached, hub_id, settings, on_notice)
    try:
        remote = list_remote(hub_id, settings)
        if before_fetch is not None and any(is_weights(file) for file in files_to_fetch(remote, settings)):
            before_fetch(remote, settings)
        return fetch(remote, settings, on_notice)
    except ModelUnavailableError as error:
        if cached is None or missing:
            raise
        on_notice(f"{error.what}; using the cached copy {cached.name[:7]}")
        return verify_snapshot(cached, hub_id, settings, on_notice)


def find_cached(hub_id: HubId, settings: HubSettings) -> tuple[Path | None, list[str]]:
    """The cached snapshot of a revision, and the files that it lacks. Opens no connection."""
    repo_dir = settings.repo_dir(hub_id.repo)
    commit = hub_id.revision if hub_id.is_commit else None
    if commit is None:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            commit = (repo_dir / "refs" / (hub_id.revision or "main")).read_text(encoding="ascii").strip()
    if commit is None or not _COMMIT.fullmatch(commit):
        return None, []
    folder = repo_dir / "snapshots" / commit
    return (folder, missing_files(folder)) if folder.is_dir() else (None, [])


def is_weights(file: RemoteFile) -> bool:
    """Whether a file holds weights: the bulk of a model."""
    return file.name.endswith(".safetensors")


def blob_path(remote: RemoteSnapshot, file: RemoteFile, settings: HubSettings) -> Path:
    """Where the cache keeps the content of a file."""
    return settings.repo_dir(remote.hub_id.repo) / "blobs" / file.digest


def files_to_fetch(remote: RemoteSnapshot, settings: HubSettings) -> list[RemoteFile]:
    """The wanted files that the cache does not hold."""
    return [file for file in remote.files if not blob_path(remote, file, settings).exists()]


def bytes_to_fetch(remote: RemoteSnapshot, settings: HubSettings) -> int:
    """Bytes still to come, unfinished parts counted as here."""
    return bytes_to_come({file: blob_path(remote, file, settings) for file in remote.files})


def fetch(remote: RemoteSnapshot, settings: HubSettings, on_notice: Notice, *, anew: bool = False) -> Path:
    """Bring every wanted file of a snapshot into the cache, verified; the branch moves to it at the end.

    Args:
        anew: hash again also what was right once.

    Raises:
        ModelUnavailableError, CheckpointError: as `obtain`. Finished parts are kept.
    """
    hub_id = remote.hub_id
    repo_dir = settings.repo_dir(hub_id.repo)
    folder = repo_dir / "snapshots" / remote.commit
    missing = files_to_fetch(remote, settings)
    with errors_of(hub_id, settings):
        try:
            by_blob = {blob_path(remote, file, settings): file for file in missing}  # equal ones share a blob
            fetch_files(remote, {file: blob for blob, file in by_blob.items()}, settings, on_notice)
        finally:
            drop_empty_folders(repo_dir)
        folder.mkdir(parents=True, exist_ok=True)
        for file in remote.files:
            link(blob_path(remote, file, settings), folder / file.name)
        if not hub_id.is_commit:
            write_ref(repo_dir / "refs" / (hub_id.revision or "main"), remote.commit)
    try:
        names = [file.name for file in remote.files]
        return verify_snapshot(folder, hub_id, settings, on_notice, names=names, anew=anew)
    except CheckpointError as error:
        if missing:
            raise
        on_notice(f"{error.what}; fetching it again")
        return fetch(remote, settings, on_notice)


def verify_snapshot(
    folder: Path,
    hub_id: HubId,
    settings: HubSettings,
    on_notice: Notice,
    *,
    names: Iterable[str] | None = None,
    anew: bool = False,
) -> Path:
    """The folder of a snapshot, once its files are known to be right.

    Args:
        names: of the files to check; else those that llmcli reads.
        anew: hash again also what was right once.

    Raises:
        CheckpointError: a file does not have its hash; it is removed.
    """
    with errors_of(hub_id, settings):
        files = [folder / name for name in names or needed_files(os.listdir(folder))]
        verify_files(files, settings.cache_dir, settings.marks_file, on_notice, anew=anew)
    return folder
