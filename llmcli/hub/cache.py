"""What the hub's cache holds, and how to take models out of it.

Thin over huggingface_hub's own scan and delete strategy, which keeps blobs that other revisions share. Knows
no network. Called by `llmcli list` and `llmcli rm`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmcli.errors import LLMCliError, ModelNotFoundError, OutputError, quote
from llmcli.hub.failures import nearest_cached
from llmcli.hub.names import HubId
from llmcli.hub.settings import HubSettings

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, CachedRevisionInfo, DeleteCacheStrategy

SHORT_COMMIT = 7


@dataclass(frozen=True, slots=True)
class CachedModel:
    """One model repository in the cache.

    Attributes:
        name: "owner/name".
        path: snapshot of its main branch, else the newest one.
        revision: commit of that snapshot.
        num_revisions: how many snapshots there are.
        size: bytes on disk, all revisions together, unfinished downloads included.
        modified: seconds since the epoch.
        runnable: whether the snapshot has a config.json and safetensors weights.
    """

    name: str
    path: Path
    revision: str
    num_revisions: int
    size: int
    modified: float
    runnable: bool


@dataclass(frozen=True)
class Deletion:
    """What `llmcli rm` is about to delete.

    Attributes:
        freed: bytes that come free, blobs shared with what stays left out.
        commits: (model, commit) of each snapshot that goes.
    """

    freed: int
    commits: tuple[tuple[str, str], ...]
    strategies: tuple["DeleteCacheStrategy", ...]

    def execute(self) -> None:
        """Delete. Raises OutputError when the file system does not let it."""
        try:
            for strategy in self.strategies:
                strategy.execute()
        except OSError as error:
            where = quote(str(error.filename or ""))
            raise OutputError(f"could not delete {where}: {quote(error.strerror or str(error))}") from error


def cached_models(settings: HubSettings) -> list[CachedModel]:
    """Every model repository in the cache, by name."""
    return sorted((_describe(repo) for repo in _repos(settings)), key=lambda model: model.name.lower())


def plan_deletion(hub_ids: Sequence[HubId], settings: HubSettings) -> Deletion:
    """Look up what goes: all revisions of `owner/name`, or the one of `owner/name@revision`.

    Args:
        hub_ids: a revision may be a branch, a tag, or the first 7 digits or more of a commit.

    Raises:
        ModelNotFoundError: one of them is not in the cache; nothing is deleted then.
    """
    from huggingface_hub import scan_cache_dir

    repos = {repo.repo_id: repo for repo in _repos(settings)}
    commits: dict[str, set[str]] = {}
    for hub_id in hub_ids:
        if hub_id.repo not in repos:
            raise _absent(hub_id, settings)
        found = [
            revision.commit_hash for revision in repos[hub_id.repo].revisions if _is_meant(hub_id, revision)
        ]
        if not found:
            raise _absent(hub_id, settings)
        commits.setdefault(hub_id.repo, set()).update(found)
    cache = scan_cache_dir(settings.cache_dir)
    strategies = tuple(
        # one repository at a time: a renamed one may be cached twice, with the same commits
        dataclasses.replace(cache, repos=frozenset({repos[name]})).delete_revisions(*found)
        for name, found in commits.items()
    )
    parts = sum(_partial_bytes(repo_path) for strategy in strategies for repo_path in strategy.repos)
    freed = parts + sum(strategy.expected_freed_size for strategy in strategies)
    return Deletion(
        freed, tuple((name, commit) for name in commits for commit in sorted(commits[name])), strategies
    )


def _repos(settings: HubSettings) -> list["CachedRepoInfo"]:
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repos = scan_cache_dir(settings.cache_dir).repos
    except CacheNotFound:
        return []
    except (OSError, ValueError) as error:
        raise LLMCliError(f"can not read the model cache: {quote(str(error))}") from error
    return [repo for repo in repos if repo.repo_type == "model" and repo.revisions]


def _describe(repo: "CachedRepoInfo") -> CachedModel:
    shown = repo.refs.get("main") or max(repo.revisions, key=lambda revision: revision.last_modified)
    names = {file.file_name for file in shown.files}
    return CachedModel(
        name=repo.repo_id,
        path=shown.snapshot_path,
        revision=shown.commit_hash,
        num_revisions=len(repo.revisions),
        size=repo.size_on_disk + _partial_bytes(repo.repo_path),
        modified=shown.last_modified,
        runnable="config.json" in names and any(name.endswith(".safetensors") for name in names),
    )


def _is_meant(hub_id: HubId, revision: "CachedRevisionInfo") -> bool:
    wanted = hub_id.revision
    if wanted is None or wanted in revision.refs:
        return True
    return len(wanted) >= SHORT_COMMIT and revision.commit_hash.startswith(wanted)


def _partial_bytes(repo_path: Path) -> int:
    return sum(part.stat().st_size for part in repo_path.glob("blobs/*.incomplete"))


def _absent(hub_id: HubId, settings: HubSettings) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{hub_id} is not in the cache",
        why=nearest_cached(hub_id, settings),
        fix="`llmcli list --all` shows what is",
    )
