"""What can be known of a model before it is fetched: a folder with its settings, and the headers of its weights.

Of each shard only the header is asked for, by a range of bytes; the file is as long as the real one and the rest
of it a hole, which takes no space on the disk. So whatever reads a model's folder, and no weights, can read this
one. Called by the commands that give the fit verdict.
"""

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from llmcli.errors import LLMCliError
from llmcli.hub.download import blob_path, is_weights
from llmcli.hub.fetching import run_all
from llmcli.hub.remote import RemoteSnapshot, errors_of
from llmcli.hub.settings import HubSettings
from llmcli.hub.transfer import RemoteFile, fetch_blob, read_range

FIRST_BYTES = 1 << 17  # holds the whole header of most shards
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_SMALL_BYTES = 32 << 20
LEFT_OUT = ("tokenizer.json", "tokenizer.model")  # megabytes, and nothing in them that tells about memory


@contextlib.contextmanager
def outline(remote: RemoteSnapshot, settings: HubSettings) -> Iterator[Path]:
    """A folder with the outline of a model, gone when the block ends. What the cache holds is linked.

    Errors of ours that leave the block name the model in place of the folder, which nobody knows.

    Raises:
        ModelUnavailableError: the hub does not give it (gated, say).
        CheckpointError: a small file arrived damaged twice.
    """
    with tempfile.TemporaryDirectory(prefix="llmcli-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        tasks = [
            partial(_outline_file, file, remote, folder, settings)
            for file in remote.files
            if "/" not in file.name and file.name not in LEFT_OUT
        ]
        with errors_of(remote.hub_id, settings):
            run_all(tasks, settings.max_workers, threading.Event())
        try:
            yield folder
        except LLMCliError as error:
            error.what, error.why, error.fix = (
                text.replace(name, str(remote.hub_id)) for text in (error.what, error.why, error.fix)
            )
            raise


def read_text_file(file: RemoteFile, remote: RemoteSnapshot, settings: HubSettings) -> str:
    """The text of a small file of the repository, such as its licence.

    Raises:
        ModelUnavailableError: the hub does not give it.
    """
    with errors_of(remote.hub_id, settings):
        size = min(file.size, MAX_SMALL_BYTES)
        data = read_range(file, _url(file, remote, settings), 0, size, settings) if size else b""
    return data.decode("utf-8", "replace")


def _outline_file(file: RemoteFile, remote: RemoteSnapshot, folder: Path, settings: HubSettings) -> None:
    blob, url = blob_path(remote, file, settings), _url(file, remote, settings)
    if blob.exists():
        (folder / file.name).symlink_to(blob.absolute())
    elif is_weights(file):
        _outline_shard(file, url, folder / file.name, settings)
    elif file.size <= MAX_SMALL_BYTES:
        fetch_blob(file, url, folder / file.name, settings, lambda num_bytes: None)


def _outline_shard(file: RemoteFile, url: str, place: Path, settings: HubSettings) -> None:
    """The format: 8 bytes, little-endian, with the length of the JSON header that follows them; then the data."""
    have = min(FIRST_BYTES, file.size)
    data = read_range(file, url, 0, have, settings) if have else b""
    end = 8 + int.from_bytes(data[:8], "little")
    if have < end <= min(file.size, MAX_HEADER_BYTES):
        data += read_range(file, url, have, end, settings)
    with place.open("wb") as out:
        out.write(data)
        out.truncate(file.size)


def _url(file: RemoteFile, remote: RemoteSnapshot, settings: HubSettings) -> str:
    return f"{settings.endpoint}/{remote.hub_id.repo}/resolve/{remote.commit}/{file.name}"
