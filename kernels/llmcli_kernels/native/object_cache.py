"""Compiled object code on disk, so that only the first run of a version on a machine compiles.

Owns the folder and the files' form; knows nothing of LLVM. A file is the SHA-256 of the code, then the code: anything
else is ignored and written anew. Nothing here fails: without a usable folder there is no cache.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

DIGEST_BYTES = 32


def default_folder() -> Path | None:
    """$XDG_CACHE_HOME/llmcli/kernels, else ~/.cache/llmcli/kernels; None without a home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "llmcli" / "kernels"
    except RuntimeError:
        return None


def cached(folder: Path | None, key: str, produce: Callable[[], bytes]) -> bytes:
    """The code that was stored under `key`, else what `produce` returns, which is stored."""
    path = None if folder is None else folder / (hashlib.sha256(key.encode()).hexdigest() + ".o")
    code = None if path is None else _read(path)
    if code is None:
        code = produce()
        if path is not None:
            with contextlib.suppress(OSError):
                _write(path, code)
    return code


def _read(path: Path) -> bytes | None:
    try:
        if not _is_private(path.parent):
            return None
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    """Under another name first: whoever reads at the same time sees all or nothing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_private(path.parent):
        return
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
        temporary = Path(file.name)
    try:
        temporary.write_bytes(hashlib.sha256(code).digest() + code)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_private(folder: Path) -> bool:
    """Only we may write there: what is read from it will be executed."""
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
