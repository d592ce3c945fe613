"""From a hub id to a folder in the hub's cache: what a repository has, what is needed, what to get.

Keeps huggingface_hub's documented cache layout (blobs, snapshots, refs), so that other tools share the files.
Fetches only what llmcli reads: never code, never pickled weights. Knows nothing of local folders or of the
bundled model. Called by `hub/models.py` and by `llmcli pull`.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcli.config import human_bytes
from llmcli.errors import CheckpointError, LLMCliError, ModelUnavailableError, quote
from llmcli.hub.failures import UnexpectedAnswerError, not_cached, translate
from llmcli.hub.folder import missing_files
from llmcli.hub.names import HubId
from llmcli.hub.settings import HubSettings
from llmcli.hub.transfer import RemoteFile, fetch_blob, partial_size
from llmcli.hub.verify import remember, verify_files

Notice = Callable[[str], None]
MIN_BAR_BYTES = 1 << 20
SILENT = 50  # a level of Python's logging
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_EXACT = {
    "config.json",
    "generation_config.json",
    "quant_config.json",
    "quantize_config.json",
    "special_tokens_map.json",
    "model.safetensors.index.json",
}
_TOKENIZER = re.compile(r"(tokenizer|chat_template)[A-Za-z0-9_-]*\.(json|model|jinja)")


@dataclass(frozen=True, slots=True)
class RemoteSnapshot:
    """One commit of a repository: the files that llmcli needs of it, and how many it leaves."""

    hub_id: HubId
    commit: str
    files: tuple[RemoteFile, ...]
    num_skipped: int

    @property
    def size(self) -> int:
        """Bytes of the needed files."""
        return sum(file.size for file in self.files)


def needed_files(names: Iterable[str]) -> list[str]:
    """Of a repository's files, those that llmcli reads: settings, tokenizer, template, one set of weights."""
    plain = [name for name in names if _PLAIN_NAME.fullmatch(name)]
    weights = [name for name in plain if name.endswith(".safetensors") and not name.startswith("adapter_")]
    standard = [name for name in weights if name.startswith("model")]  # some also ship "consolidated" copies
    settings = [name for name in plain if name in _EXACT or _TOKENIZER.fullmatch(name)]
    return sorted(settings) + sorted(standard or weights)


def obtain(hub_id: HubId, settings: HubSettings, on_notice: Notice) -> Path:
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
        return _verified(cached, hub_id, settings, on_notice)
    try:
        return fetch(list_remote(hub_id, settings), settings, on_notice)
    except ModelUnavailableError as error:
        if cached is None or missing:
            raise
        on_notice(f"{error.what}; using the cached copy {cached.name[:7]}")
        return _verified(cached, hub_id, settings, on_notice)


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


def list_remote(hub_id: HubId, settings: HubSettings) -> RemoteSnapshot:
    """Ask the hub for the files of a revision: one request.

    Raises:
        ModelUnavailableError: whatever keeps the hub from answering.
        CheckpointError: nothing there that llmcli can read.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=settings.endpoint, token=settings.token or False)
    with _errors_of(hub_id, settings):
        info = api.model_info(
            hub_id.repo, revision=hub_id.revision, files_metadata=True, timeout=settings.timeout_s
        )
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
        commit = str(info.sha)
        if not _COMMIT.fullmatch(commit):
            raise UnexpectedAnswerError(f"commit {commit[:60]!r}")
        names = needed_files(siblings)
        files = tuple(_remote_file(siblings[name]) for name in names)
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise _nothing_to_run(hub_id, list(siblings))
    return RemoteSnapshot(hub_id, commit, files, len(siblings) - len(files))


def files_to_fetch(remote: RemoteSnapshot, settings: HubSettings) -> list[RemoteFile]:
    """The needed files that the cache does not hold."""
    blobs = settings.repo_dir(remote.hub_id.repo) / "blobs"
    return [file for file in remote.files if not (blobs / file.digest).exists()]


def bytes_to_fetch(remote: RemoteSnapshot, settings: HubSettings) -> int:
    """Bytes still to come, unfinished parts counted as here."""
    blobs = settings.repo_dir(remote.hub_id.repo) / "blobs"
    missing = files_to_fetch(remote, settings)
    return sum(max(0, file.size - partial_size(blobs / file.digest)) for file in missing)


def free_space(settings: HubSettings) -> int:
    """Free bytes on the disk of the cache."""
    folder = settings.cache_dir
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def fetch(remote: RemoteSnapshot, settings: HubSettings, on_notice: Notice) -> Path:
    """Bring every needed file of a snapshot into the cache, verified; the branch moves to it at the end.

    Raises:
        ModelUnavailableError, CheckpointError: as `obtain`. Finished parts are kept.
    """
    hub_id = remote.hub_id
    repo_dir = settings.repo_dir(hub_id.repo)
    folder = repo_dir / "snapshots" / remote.commit
    missing = files_to_fetch(remote, settings)
    _check_space(remote, settings)
    with _errors_of(hub_id, settings):
        (repo_dir / "blobs").mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        if missing:
            total = sum(file.size for file in missing)
            on_notice(f"fetching {hub_id}: {len(missing)} files, {human_bytes(total)}")
        try:
            for file in missing:
                _fetch_one(file, remote, settings, on_notice)
        except KeyboardInterrupt:
            on_notice("stopped; what has arrived is kept: run the same command again to resume")
            raise
        finally:
            _drop_empty_folders(repo_dir, folder)
        folder.mkdir(parents=True, exist_ok=True)
        for file in remote.files:
            _link(repo_dir / "blobs" / file.digest, folder / file.name)
        if not hub_id.is_commit:
            _write_ref(repo_dir / "refs" / (hub_id.revision or "main"), remote.commit)
    try:
        return _verified(folder, hub_id, settings, on_notice)
    except CheckpointError as error:
        if missing:
            raise
        on_notice(f"{error.what}; fetching it again")
        return fetch(remote, settings, on_notice)


def _fetch_one(file: RemoteFile, remote: RemoteSnapshot, settings: HubSettings, on_notice: Notice) -> None:
    repo_dir = settings.repo_dir(remote.hub_id.repo)
    blob = repo_dir / "blobs" / file.digest
    url = f"{settings.endpoint}/{remote.hub_id.repo}/resolve/{remote.commit}/{file.name}"
    # the same lock as the hub's client takes
    lock = settings.cache_dir / ".locks" / repo_dir.name / f"{file.digest}.lock"
    with _locked(lock, lambda: on_notice(f"another process is fetching {file.name}; waiting for it")):
        if blob.exists():
            return
        with _bar(file, partial_size(blob), settings) as on_bytes:
            fetch_blob(file, url, blob, settings, on_bytes)
        remember([blob], settings.marks_file)


@contextlib.contextmanager
def _locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file, saying so once when another process has it."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _bar(file: RemoteFile, have: int, settings: HubSettings) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr for a large file, only on a terminal, and off where the hub's bars are."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    wanted = settings.progress and file.size >= MIN_BAR_BYTES
    disable = None if wanted else True  # None: off when stderr is not a terminal
    with tqdm(  # type: ignore[no-untyped-call]
        desc=file.name,
        total=file.size,
        initial=have,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        disable=disable,
    ) as bar:
        yield bar.update


@contextlib.contextmanager
def _errors_of(hub_id: HubId, settings: HubSettings) -> Iterator[None]:
    """Foreign errors become ours; the client's warnings, which may carry a server's raw text, stay unsaid."""
    from huggingface_hub.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(SILENT)
    try:
        yield
    except LLMCliError:
        raise
    except Exception as error:
        raise translate(error, hub_id, settings) from error
    finally:
        logging.set_verbosity(level)


def _verified(folder: Path, hub_id: HubId, settings: HubSettings, on_notice: Notice) -> Path:
    with _errors_of(hub_id, settings):
        names = needed_files(os.listdir(folder))
        verify_files([folder / name for name in names], settings.cache_dir, settings.marks_file, on_notice)
    return folder


def _remote_file(sibling: Any) -> RemoteFile:
    digest = sibling.lfs["sha256"] if sibling.lfs else sibling.blob_id
    size = sibling.lfs["size"] if sibling.lfs else sibling.size
    if not isinstance(size, int) or size < 0 or not _DIGEST.fullmatch(str(digest)):
        raise UnexpectedAnswerError(f"{sibling.rfilename} has size {size!r} and hash {digest!r}")
    return RemoteFile(sibling.rfilename, size, digest)


def _nothing_to_run(hub_id: HubId, names: list[str]) -> CheckpointError:
    from llmcli.hub.folder import no_weights

    return no_weights(str(hub_id), names)


def _check_space(remote: RemoteSnapshot, settings: HubSettings) -> None:
    need, free = bytes_to_fetch(remote, settings), free_space(settings)
    if need > free:
        raise ModelUnavailableError(
            f"{remote.hub_id} needs {human_bytes(need)} more, and {quote(str(settings.cache_dir))} has"
            f" {human_bytes(free)} free",
            fix="remove models (`llmcli list`, `llmcli rm`), or set HF_HOME to another disk",
        )


def _drop_empty_folders(repo_dir: Path, folder: Path) -> None:
    """Leave no trace of a repository of which nothing has arrived."""
    with contextlib.suppress(OSError):  # a folder with something in it stays, and so do those above it
        for path in (folder, folder.parent, repo_dir / "blobs", repo_dir):
            path.rmdir()


def _link(blob: Path, link: Path) -> None:
    """Point a snapshot's name at its blob, as the hub's client does; a copy where links are not possible."""
    target = os.path.relpath(blob, link.parent)
    if link.is_symlink() and os.readlink(link) == target:
        return
    part = _beside(link)
    try:
        part.symlink_to(target)
    except OSError:
        shutil.copyfile(blob, part)
    os.replace(part, link)


def _write_ref(ref: Path, commit: str) -> None:
    with contextlib.suppress(OSError):
        if ref.read_text(encoding="ascii").strip() == commit:
            return
    ref.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(ref)
    part.write_text(commit, encoding="ascii")
    os.replace(part, ref)


def _beside(path: Path) -> Path:
    """A name of its own in the same folder, so that the step to the final name is one rename."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}")
