"""What the hub's cache holds: models, their revisions, downloads that were not finished.

What is to be deleted or verified is looked up with huggingface_hub's own scan; for a listing the documented layout is
read here, as that client takes 0.1 s to import. Knows no network, and deletes nothing: that is for `hub/deletion.py`.
Called by `llmcli list`, `rm`, `prune` and `verify`.
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
    """Every model repository in the cache, by name, unfinished and broken ones too.

    Raises:
        LLMCliError: the cache can not be read.
    """
    found = (_describe(folder) for folder in _repo_folders(settings))
    return sorted((model for model in found if model is not None), key=lambda model: model.name.lower())


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
        folder for folder in _repo_folders(settings) if folder.name not in listed and _is_begun(folder)
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
    """The folders of model repositories.

    Raises:
        LLMCliError: the cache can not be read.
    """
    try:
        return [path for path in settings.cache_dir.iterdir() if path.name.startswith("models--")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LLMCliError(f"can not read the model cache: {quote(str(error))}") from error


def _is_begun(folder: Path) -> bool:
    """Whether it is a model's folder in which there is something, or will be."""
    return is_repo(repo_name(folder)) and any((folder / part).is_dir() for part in ("blobs", "snapshots"))


def _describe(folder: Path) -> CachedModel | None:
    """What a repository's folder holds; None where it is none."""
    snapshots = {path.name: _files(path) for path in folder.glob("snapshots/*") if path.is_dir()}
    main = _commit_of_main(folder)
    try:
        found = [file.stat() for files in snapshots.values() for file in files]
    except OSError:  # a link leads to nothing
        snapshots = {}
    if not snapshots or (main is not None and main not in snapshots):
        return _describe_unlisted(folder) if _is_begun(folder) else None
    blobs = {(status.st_dev, status.st_ino): status for status in found}.values()  # revisions share them
    modified = {
        commit: _modified(folder / "snapshots" / commit, files) for commit, files in snapshots.items()
    }
    shown = main if main is not None else max(modified, key=lambda commit: modified[commit])
    names = {file.name for file in snapshots[shown]}
    return CachedModel(
        name=repo_name(folder),
        path=folder / "snapshots" / shown,
        revision=shown,
        num_revisions=len(snapshots),
        size=sum(blob.st_size for blob in blobs) + bytes_in(folder.glob("blobs/*.incomplete")),
        modified=modified[shown],
        accessed=max((blob.st_atime for blob in blobs), default=folder.stat().st_atime),
        runnable="config.json" in names and any(name.endswith(".safetensors") for name in names),
    )


def _files(snapshot: Path) -> list[Path]:
    return [path for path in snapshot.rglob("*") if not path.is_dir()]


def _modified(snapshot: Path, files: Sequence[Path]) -> float:
    """When the newest file of a snapshot came."""
    return max((file.stat().st_mtime for file in files), default=snapshot.stat().st_mtime)


def _commit_of_main(folder: Path) -> str | None:
    try:
        return (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None


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
