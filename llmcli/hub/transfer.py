"""Fetches one file of a hub repository: resumed where it stopped, checked by its hash, then made visible.

huggingface_hub itself resumes a dropped connection but starts a file again after a Ctrl-C or a crash. Here
the partial file stays beside its target, and a blob has its final name only once its hash is right. Knows
nothing of snapshots. Called by `hub/download.py`.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcli.errors import CheckpointError, quote
from llmcli.hub.failures import UnexpectedAnswerError, is_transient
from llmcli.hub.settings import HubSettings
from llmcli.hub.verify import git_id_of, sha256_of

MAX_FAILURES = 5
RANGE_TRIES = 3
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository.

    Attributes:
        name: path inside the repository; only plain names are ever asked for.
        size: bytes.
        digest: sha256 of the content (64 hex digits), or git's object id (40) for a small file.
    """

    name: str
    size: int
    digest: str


def partial_path(blob: Path) -> Path:
    """Where the unfinished part of a blob waits; the cache's own tools know the suffix."""
    return blob.with_name(blob.name + ".incomplete")


def partial_size(blob: Path) -> int:
    """Bytes already here of an unfinished blob."""
    return _size(partial_path(blob))


def fetch_blob(
    file: RemoteFile, url: str, blob: Path, settings: HubSettings, on_bytes: Callable[[int], None]
) -> None:
    """Fetch `url` to `blob`, resuming a partial one; a wrong hash is fetched once more from the start.

    Args:
        on_bytes: told how many bytes came in; negative when some are dropped and come again.

    Raises:
        CheckpointError: the content has not the hash that the hub names, twice.
        Exception: of the HTTP client, when the connection does not last; `failures.translate` explains it.
    """
    part = partial_path(blob)
    actual = ""
    for _ in range(2):
        _complete(part, url, file, settings, on_bytes)
        actual = sha256_of(part) if len(file.digest) == 64 else git_id_of(part)
        if actual == file.digest:
            os.replace(part, blob)
            return
        on_bytes(-part.stat().st_size)
        part.unlink()
    raise CheckpointError(
        f"{quote(file.name)} arrived damaged twice: its hash is {actual}, the hub's is {file.digest}",
        why="nothing of it was kept",
        fix="run the same command again; if it stays so, the network or the repository alters the file",
    )


def read_range(file: RemoteFile, url: str, start: int, end: int, settings: HubSettings) -> bytes:
    """Bytes `start` to `end` - 1 of a file, without fetching the rest.

    Raises:
        Exception: of the HTTP client, when that fails some times; `failures.translate` explains it.
    """
    for failures in range(1, RANGE_TRIES):
        try:
            return _read_range(file, url, start, end, settings)
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(settings.retry_wait_s * failures)
    return _read_range(file, url, start, end, settings)


def _read_range(file: RemoteFile, url: str, start: int, end: int, settings: HubSettings) -> bytes:
    data = b""
    with _get(url, f"bytes={start}-{end - 1}", settings) as response:
        _check_answer(file, response)
        first = _start_of(response.status_code, response.headers.get("content-range", ""))
        for chunk in response.iter_raw():  # a server that knows no ranges sends everything: leave early
            data += chunk
            if first + len(data) >= end:
                break
    part = data[max(0, start - first) : end - first]
    if first > start or len(part) != end - start:
        raise UnexpectedAnswerError(f"{len(part)} bytes of {file.name} instead of {end - start}")
    return part


def _complete(
    part: Path, url: str, file: RemoteFile, settings: HubSettings, on_bytes: Callable[[int], None]
) -> None:
    """Append until the partial file is full; give up after some failures with no byte between them."""
    failures = 0
    while (have := _size(part)) != file.size:
        if have > file.size:
            os.truncate(part, 0)
            on_bytes(-have)
            have = 0
        error: Exception = UnexpectedAnswerError(f"{file.name} ended at {have} of {file.size} bytes")
        try:
            _append(part, have, url, file, settings, on_bytes)
        except Exception as caught:
            if not is_transient(caught):
                raise
            error = caught
        failures = 0 if _size(part) > have else failures + 1
        if failures >= MAX_FAILURES:
            raise error
        if failures:
            time.sleep(settings.retry_wait_s * failures)
    part.touch()  # an empty file needs no request


def _append(
    part: Path, have: int, url: str, file: RemoteFile, settings: HubSettings, on_bytes: Callable[[int], None]
) -> None:
    """One request for the bytes from `have` on."""
    with _get(url, f"bytes={have}-" if have else "", settings) as response:
        if response.status_code == 416:
            os.truncate(part, 0)
            on_bytes(-have)
            return
        _check_answer(file, response)
        start = _start_of(response.status_code, response.headers.get("content-range", ""))
        if start != have:
            if have:
                os.truncate(part, 0)
            on_bytes(-have)
            if start:
                return
        with part.open("ab") as out:
            for chunk in response.iter_raw():  # as it comes: what a larger chunk gathered would be lost
                out.write(chunk)
                out.flush()  # kept, whatever ends this process
                on_bytes(len(chunk))
                if out.tell() > file.size:
                    raise UnexpectedAnswerError(f"{file.name} is longer than its {file.size} bytes")


def _get(url: str, byte_range: str, settings: HubSettings) -> Any:
    """A request whose answer is read bit by bit, inside a `with`."""
    from huggingface_hub import get_session

    headers = settings.headers() | {"Accept-Encoding": "identity"}
    if byte_range:
        headers["Range"] = byte_range
    return get_session().stream(
        "GET", url, headers=headers, timeout=settings.timeout_s, follow_redirects=True
    )


def _check_answer(file: RemoteFile, response: Any) -> None:
    from huggingface_hub import hf_raise_for_status

    hf_raise_for_status(response)
    if "text/html" in response.headers.get("content-type", ""):
        raise UnexpectedAnswerError(f"a web page instead of {file.name}")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _start_of(status: int, content_range: str) -> int:
    """Offset of the first byte that an answer carries: 206 with a Content-Range, or the whole file."""
    found = _CONTENT_RANGE.match(content_range)
    return int(found[1]) if status == 206 and found else 0
