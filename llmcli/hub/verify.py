"""Are the cached files the ones that the hub named? Compares each with the hash that is its blob's file name.

The hub's client checks sizes only. A blob is called by the sha256 of its content (large files) or by its git
object id (small ones); a file that was right once is remembered by size, modification time and inode, so that
gigabytes are read once. Knows no network. Called by `hub/download.py` and `hub/cache.py`.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from llmcli.config import human_bytes
from llmcli.errors import CheckpointError, quote

CHUNK_BYTES = 1 << 22
SLOW_BYTES = 1 << 28
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_ID = re.compile(r"[0-9a-f]{40}")


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's content."""
    digest = hashlib.sha256()
    _feed(path, digest.update)
    return digest.hexdigest()


def git_id_of(path: Path) -> str:
    """Hex object id that git gives to a file's content: sha1 of a short header and the content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    _feed(path, digest.update)
    return digest.hexdigest()


def has_digest(path: Path, digest: str) -> bool:
    """Whether a file has this sha256 (64 hex digits) or git object id (40)."""
    return digest == (sha256_of(path) if len(digest) == 64 else git_id_of(path))


def verify_files(
    files: Iterable[Path],
    cache_dir: Path,
    marks_file: Path,
    on_notice: Callable[[str], None] | None = None,
    *,
    anew: bool = False,
) -> None:
    """Check the files of one snapshot, and remember the good ones.

    Args:
        files: links in the snapshot's folder.
        cache_dir: the cache; a link that leads out of it is refused.
        anew: hash again also what was right once and has not changed since.

    Raises:
        CheckpointError: the first wrong file and both hashes; it is removed, so that it is fetched again.
    """
    marks = {} if anew else read_marks(marks_file)
    fresh: list[Path] = []
    for file in files:
        blob = file.resolve()
        if not blob.is_relative_to(cache_dir.resolve()):
            raise CheckpointError(
                f"{quote(file.name)} leads out of the model cache, to {quote(str(blob))}",
                fix=f"remove {quote(str(file))} and fetch the model again",
            )
        if marks.get(str(blob)) == _stamp(blob):
            continue
        size = blob.stat().st_size
        if size > SLOW_BYTES and on_notice:
            once = "" if anew else ", once"
            on_notice(f"checking the sha256 of {quote(file.name)} ({human_bytes(size)}){once}")
        _check(file, blob)
        fresh.append(blob)
    remember(fresh, marks_file)


def damaged_files(
    files: Iterable[Path], cache_dir: Path, marks_file: Path, on_notice: Callable[[str], None] | None = None
) -> list[CheckpointError]:
    """Hash all files of one snapshot anew: an error for each that is wrong; those are removed."""
    errors: list[CheckpointError] = []
    for file in files:
        try:
            verify_files([file], cache_dir, marks_file, on_notice, anew=True)
        except CheckpointError as error:
            errors.append(error)
        except OSError as error:
            cause = quote(error.strerror or str(error))
            errors.append(CheckpointError(f"{quote(file.name)} can not be read: {cause}"))
    return errors


def remember(blobs: Iterable[Path], marks_file: Path) -> None:
    """Note that these files are right as they are now. Marks that can not be written only cost time later."""
    new = {str(blob.resolve()): _stamp(blob) for blob in blobs}
    if not new:
        return
    marks = {path: stamp for path, stamp in read_marks(marks_file).items() if Path(path).exists()} | new
    with contextlib.suppress(OSError):
        marks_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = marks_file.with_name(f"{marks_file.name}.{os.getpid()}")
        part.write_text(json.dumps(marks, indent=0), encoding="utf-8")
        part.chmod(0o600)
        part.replace(marks_file)


def read_marks(marks_file: Path) -> dict[str, list[int]]:
    """Blob path -> size, modification time in ns, inode. A damaged file counts as empty."""
    try:
        marks = json.loads(marks_file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return marks if isinstance(marks, dict) else {}


def _check(file: Path, blob: Path) -> None:
    expected = blob.name
    if _SHA256.fullmatch(expected):
        kind, actual = "sha256", sha256_of(blob)
    elif _GIT_ID.fullmatch(expected):
        kind, actual = "git id", git_id_of(blob)
    else:
        return  # an entity tag of another kind says nothing about the content
    if actual == expected:
        return
    _remove(blob)
    raise CheckpointError(
        f"{quote(file.name)} is damaged: its {kind} is {actual}, the hub's is {expected}",
        why="the file was removed from the cache",
        fix="run the same command again, with a network, to fetch it anew",
    )


def _remove(blob: Path) -> None:
    """A blob, and every snapshot's link to it: a link to nothing would spoil the whole repository for other tools."""
    for name in blob.parent.parent.glob("snapshots/**/*"):
        if name.is_symlink() and name.resolve() == blob:
            with contextlib.suppress(OSError):
                name.unlink()
    with contextlib.suppress(OSError):
        blob.unlink()


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _feed(path: Path, update: Callable[[bytes], None]) -> None:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            update(chunk)
