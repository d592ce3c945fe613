"""What the hub's cache holds: models, their revisions, downloads that were not finished.

Thin over huggingface_hub's own scan. Knows no network, and deletes nothing: that is for `hub/deletion.py`. Called by
`llmcli list`, `rm`, `prune` and `verify`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from llmcli.errors import LLMCliError, ModelNotFoundError, quote
from llmcli.hub.names import HubId, is_repo, parse_hub_id
from llmcli.hub.search import nearest_cached
from llmcli.hub.settings import HubSettings

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, CachedRevisionInfo

SHORT_COMMIT = 7
GLOB_SIGNS = "*?["


@dataclass(frozen=True, slots=True)
class CachedModel:
    """One model repository in the cache.

    Attributes:
        name: "owner/name".
        path: snapshot of its main branch, else the newest one; the repository's folder where there is none.
        revision: commit of that snapshot; empty where the copy is broken or a download was not finished.
        num_revisions: how many snapshots there are.
        size: bytes on disk, all revisions together, unfinished downloads included.
        modified, accessed: seconds since the epoch.
        runnable: whether the snapshot has a config.json and safetensors weights.
    """

    name: str
    path: Path
    revision: str
    num_revisions: int
    size: int
    modified: float
    accessed: float
    runnable: bool


def cached_models(settings: HubSettings) -> list[CachedModel]:
    """Every model repository in the cache, by name, unfinished and broken ones too."""
    repos = cached_repos(settings)
    models = [_describe(repo) for repo in repos]
    models += [_describe_unlisted(folder) for folder in unlisted_repos(settings, repos)]
    return sorted(models, key=lambda model: model.name.lower())


def find_cached_ids(typed: Sequence[str], settings: HubSettings) -> list[HubId]:
    """The cached models that names and globs stand for: `owner/name`, `owner/name@revision`, `owner/*`.

    Raises:
        UsageError: not such a name.
        ModelNotFoundError: a glob matches nothing. A plain name is not looked up here.
    """
    names = [model.name for model in cached_models(settings)]
    found: dict[HubId, None] = {}
    for text in typed:
        if not any(sign in text for sign in GLOB_SIGNS):
            found[parse_hub_id(text)] = None
            continue
        matching = [name for name in names if fnmatchcase(name, text)]
        if not matching:
            raise ModelNotFoundError(
                f"no cached model matches {quote(text)}",
                why="a glob is matched with the whole of owner/name",
                fix="`llmcli list --all` shows what is cached",
            )
        found |= {HubId(name): None for name in matching}
    return list(found)


def cached_repos(settings: HubSettings) -> list["CachedRepoInfo"]:
    """The hub client's own view of each model repository that has a snapshot.

    Raises:
        LLMCliError: the cache can not be read.
    """
    if not _repo_folders(settings):
        return []  # at once: the hub's client takes 0.1 s to import
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repos = scan_cache_dir(settings.cache_dir).repos
    except CacheNotFound:
        return []
    except (OSError, ValueError) as error:
        raise LLMCliError(f"can not read the model cache: {quote(str(error))}") from error
    return [repo for repo in repos if repo.repo_type == "model" and repo.revisions]


def files_of(hub_ids: Sequence[HubId], settings: HubSettings) -> dict[HubId, list[Path] | None]:
    """For each model one name of each of its files' contents; None for a copy in which some are missing.

    Raises:
        ModelNotFoundError: one of them is not in the cache.
    """
    listed = cached_repos(settings)
    repos = {repo.repo_id: repo for repo in listed}
    unlisted = {repo_name(folder) for folder in unlisted_repos(settings, listed)}
    found: dict[HubId, list[Path] | None] = {}
    for hub_id in hub_ids:
        if hub_id.repo in unlisted:
            found[hub_id] = None
            continue
        revisions = revisions_meant(hub_id, repos[hub_id.repo]) if hub_id.repo in repos else []
        if not revisions:
            raise absent(hub_id, settings)
        names = {file.blob_path: file.file_path for revision in revisions for file in revision.files}
        found[hub_id] = sorted(names.values())
    return found


def unlisted_repos(settings: HubSettings, repos: Sequence["CachedRepoInfo"]) -> list[Path]:
    """Folders of models that the hub's client leaves out: nothing has arrived yet, or a link leads to nothing.

    Args:
        repos: what it does not leave out.
    """
    listed = {repo.repo_path.name for repo in repos}
    return sorted(
        folder
        for folder in _repo_folders(settings)
        if folder.name not in listed
        and is_repo(repo_name(folder))
        and any((folder / part).is_dir() for part in ("blobs", "snapshots"))
    )


def is_broken(folder: Path) -> bool:
    """Whether an unlisted folder holds a revision: it is no unfinished download then."""
    return any(folder.glob("snapshots/*"))


def repo_name(folder: Path) -> str:
    """`models--owner--name` -> "owner/name"."""
    return folder.name.removeprefix("models--").replace("--", "/", 1)


def revisions_meant(hub_id: HubId, repo: "CachedRepoInfo") -> list["CachedRevisionInfo"]:
    """All of `owner/name`, or the one of `owner/name@revision`: branch, tag, or 7 digits or more of a commit."""
    return sorted(
        (revision for revision in repo.revisions if _is_meant(hub_id, revision)),
        key=lambda revision: revision.commit_hash,
    )


def bytes_in(paths: Iterator[Path] | Sequence[Path]) -> int:
    """Bytes of files, those in folders included."""
    return sum(
        file.lstat().st_size
        for path in paths
        for file in (path.rglob("*") if path.is_dir() else [path])
        if file.is_file() and not file.is_symlink()
    )


def absent(hub_id: HubId, settings: HubSettings) -> ModelNotFoundError:
    """The error for what is not in the cache."""
    return ModelNotFoundError(
        f"{hub_id} is not in the cache",
        why=nearest_cached(hub_id.repo, settings.cache_dir),
        fix="`llmcli list --all` shows what is",
    )


def _repo_folders(settings: HubSettings) -> list[Path]:
    return list(settings.cache_dir.glob("models--*--*")) if settings.cache_dir.is_dir() else []


def _describe(repo: "CachedRepoInfo") -> CachedModel:
    shown = repo.refs.get("main") or max(repo.revisions, key=lambda revision: revision.last_modified)
    names = {file.file_name for file in shown.files}
    return CachedModel(
        name=repo.repo_id,
        path=shown.snapshot_path,
        revision=shown.commit_hash,
        num_revisions=len(repo.revisions),
        size=repo.size_on_disk + bytes_in(repo.repo_path.glob("blobs/*.incomplete")),
        modified=shown.last_modified,
        accessed=repo.last_accessed,
        runnable="config.json" in names and any(name.endswith(".safetensors") for name in names),
    )


def _describe_unlisted(folder: Path) -> CachedModel:
    modified = max(path.stat().st_mtime for path in (folder, folder / "blobs") if path.exists())
    num_revisions = len(list(folder.glob("snapshots/*")))
    size = bytes_in([folder])
    return CachedModel(repo_name(folder), folder, "", num_revisions, size, modified, modified, runnable=False)


def _is_meant(hub_id: HubId, revision: "CachedRevisionInfo") -> bool:
    wanted = hub_id.revision
    if wanted is None or wanted in revision.refs:
        return True
    return len(wanted) >= SHORT_COMMIT and revision.commit_hash.startswith(wanted)
