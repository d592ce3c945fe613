"""Writes the hub's documented cache layout: blobs by hash, snapshots of links to them, refs from branch to commit.

Each step to a final name is one rename, and the locks are those of the hub's own client, so that other tools
share the files. Knows no network. Called by `hub/download.py`, `hub/fetching.py` and `hub/cache.py`.
"""

import contextlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from llmcli.hub.settings import HubSettings

LOCK_POLL_S = 0.2


class StoppedError(Exception):
    """The download that this file belongs to was given up."""


def lock_folder(repo_dir: Path, settings: HubSettings) -> Path:
    """Where the locks of a repository's blobs are: one file `DIGEST.lock` each."""
    return settings.cache_dir / ".locks" / repo_dir.name


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    """Hold a lock file, saying so once when another process has it.

    Raises:
        StoppedError: `stop` was set while waiting.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        while not lock.is_locked:
            if stop.is_set():
                raise StoppedError from None
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=LOCK_POLL_S)
    try:
        yield
    finally:
        lock.release()


def is_being_fetched(repo_dir: Path, settings: HubSettings) -> bool:
    """Whether some process holds a lock of one of the repository's blobs."""
    from filelock import FileLock, Timeout

    for path in lock_folder(repo_dir, settings).glob("*.lock"):
        try:
            with FileLock(path).acquire(timeout=0):
                pass
        except Timeout:
            return True
        except OSError:
            continue
    return False


def link(blob: Path, name: Path) -> None:
    """Point a snapshot's name at its blob, as the hub's client does; a copy where links are not possible."""
    target = os.path.relpath(blob, name.parent)
    if name.is_symlink() and os.readlink(name) == target:
        return
    name.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(name)
    try:
        part.symlink_to(target)
    except OSError:
        shutil.copyfile(blob, part)
    os.replace(part, name)


def write_ref(ref: Path, commit: str) -> None:
    """Let a branch stand for a commit."""
    with contextlib.suppress(OSError):
        if ref.read_text(encoding="ascii").strip() == commit:
            return
    ref.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(ref)
    part.write_text(commit, encoding="ascii")
    os.replace(part, ref)


def drop_empty_folders(repo_dir: Path) -> None:
    """Leave no trace of a repository of which nothing has arrived."""
    for path in (repo_dir / "blobs", repo_dir):
        with contextlib.suppress(OSError):  # a folder with something in it stays
            path.rmdir()


def _beside(path: Path) -> Path:
    """A name of its own in the same folder, so that the step to the final name is one rename."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}")
