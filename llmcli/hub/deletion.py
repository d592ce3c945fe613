"""What goes when models are deleted from the hub's cache, told before it goes.

Snapshots go by huggingface_hub's own strategy, which keeps blobs that other revisions share; unfinished downloads and
blobs that no snapshot names are files of their own. Called by `llmcli rm` and `llmcli prune`.
"""

import contextlib
import dataclasses
import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmcli.errors import OutputError, quote
from llmcli.hub.cache import (
    SHORT_COMMIT,
    absent,
    bytes_in,
    cached_repos,
    is_broken,
    repo_name,
    revisions_meant,
    unlisted_repos,
)
from llmcli.hub.names import HubId
from llmcli.hub.remote import silent_client
from llmcli.hub.settings import HubSettings
from llmcli.hub.snapshot import is_being_fetched

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, DeleteCacheStrategy


@dataclass(frozen=True, slots=True)
class Doomed:
    """One thing that goes: a snapshot, by the first digits of its commit, or what else it is; bytes."""

    name: str
    what: str
    size: int


@dataclass(frozen=True)
class Deletion:
    """What is about to be deleted.

    Attributes:
        items: what a person sees; blobs that several of them share count in each.
        freed: bytes that come free, blobs shared with what stays left out.
        busy: models that were left out, because a process is fetching them.
    """

    items: tuple[Doomed, ...]
    freed: int
    strategies: tuple["DeleteCacheStrategy", ...]
    paths: tuple[Path, ...] = ()
    busy: tuple[str, ...] = ()

    def execute(self) -> None:
        """Delete. Raises OutputError when the file system does not let it."""
        try:
            for strategy in self.strategies:
                with silent_client():
                    strategy.execute()
                _check_gone(strategy)
            for path in self.paths:
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            where = quote(str(error.filename or ""))
            raise OutputError(f"could not delete {where}: {quote(error.strerror or str(error))}") from error


def plan_deletion(hub_ids: Sequence[HubId], settings: HubSettings) -> Deletion:
    """Look up what goes: all revisions of `owner/name`, or the one of `owner/name@revision`.

    Args:
        hub_ids: a revision may be a branch, a tag, or the first 7 digits or more of a commit.

    Raises:
        ModelNotFoundError: one of them is not in the cache; nothing is deleted then.
    """
    listed = cached_repos(settings)
    repos = {repo.repo_id: repo for repo in listed}
    unlisted = {repo_name(folder): folder for folder in unlisted_repos(settings, listed)}
    commits: dict[str, set[str]] = {}
    paths: list[Path] = []
    for hub_id in hub_ids:
        if hub_id.revision is None and hub_id.repo in unlisted:
            paths.append(unlisted[hub_id.repo])
            continue
        found = revisions_meant(hub_id, repos[hub_id.repo]) if hub_id.repo in repos else []
        if not found:
            raise absent(hub_id, settings)
        commits.setdefault(hub_id.repo, set()).update(revision.commit_hash for revision in found)
    return _deletion([(repos[name], found) for name, found in commits.items()], paths, settings)


def plan_pruning(settings: HubSettings) -> Deletion:
    """Look up what nothing refers to: snapshots without a branch or tag, unfinished downloads, unnamed blobs."""
    revisions: list[tuple[CachedRepoInfo, set[str]]] = []
    paths: list[Path] = []
    busy: list[str] = []
    repos = cached_repos(settings)
    for repo in repos:
        if is_being_fetched(repo.repo_path, settings):
            busy.append(repo.repo_id)
            continue
        detached = {revision.commit_hash for revision in repo.revisions if not revision.refs}
        if detached:
            revisions.append((repo, detached))
        if len(detached) < len(repo.revisions):  # else the whole folder goes
            paths += _unnamed_blobs(repo)
    for folder in unlisted_repos(settings, repos):
        if is_broken(folder):
            continue  # `pull` completes it from what is there
        if is_being_fetched(folder, settings):
            busy.append(repo_name(folder))
        else:
            paths.append(folder)
    return _deletion(revisions, paths, settings, tuple(busy))


def _deletion(
    revisions: Sequence[tuple["CachedRepoInfo", set[str]]],
    paths: Sequence[Path],
    settings: HubSettings,
    busy: tuple[str, ...] = (),
) -> Deletion:
    from huggingface_hub import scan_cache_dir

    strategies: tuple[DeleteCacheStrategy, ...] = ()
    if revisions:
        cache = scan_cache_dir(settings.cache_dir)
        strategies = tuple(
            # one repository at a time: a renamed one may be cached twice, with the same commits
            dataclasses.replace(cache, repos=frozenset({repo})).delete_revisions(*commits)
            for repo, commits in revisions
        )
    items = [
        Doomed(repo.repo_id, revision.commit_hash[:SHORT_COMMIT], revision.size_on_disk)
        for repo, commits in revisions
        for revision in sorted(repo.revisions, key=lambda revision: revision.commit_hash)
        if revision.commit_hash in commits
    ]
    for path in paths:
        folder = path if path.name.startswith("models--") else path.parent.parent
        what = "broken copy" if path == folder and is_broken(folder) else "unfinished download"
        items.append(Doomed(repo_name(folder), what, bytes_in([path])))
    parts = sum(
        bytes_in(repo_path.glob("blobs/*.incomplete"))
        for strategy in strategies
        for repo_path in strategy.repos
    )
    freed = parts + bytes_in(paths) + sum(strategy.expected_freed_size for strategy in strategies)
    return Deletion(tuple(items), freed, strategies, tuple(paths), busy)


def _check_gone(strategy: "DeleteCacheStrategy") -> None:
    """Raise OSError for what the hub's client was not allowed to delete: it warns, and goes on."""
    for path in (*strategy.repos, *strategy.snapshots, *strategy.refs, *strategy.blobs):
        if os.path.lexists(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _unnamed_blobs(repo: "CachedRepoInfo") -> list[Path]:
    """Parts of files, and whole ones that no snapshot names."""
    named = {file.blob_path.resolve() for revision in repo.revisions for file in revision.files}
    return sorted(
        path for path in repo.repo_path.glob("blobs/*") if path.is_file() and path.resolve() not in named
    )
