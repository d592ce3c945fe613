"""A model fetched into a folder of the user's own, as plain files; the cache is read, and not written.

Called by `llmcli pull --local-dir`.
"""

import shutil
from pathlib import Path

from llmcli.errors import UsageError, quote
from llmcli.hub.download import blob_path
from llmcli.hub.fetching import Notice, fetch_files
from llmcli.hub.remote import RemoteSnapshot, errors_of
from llmcli.hub.settings import HubSettings
from llmcli.hub.transfer import RemoteFile, partial_path
from llmcli.hub.verify import has_digest


def fetch_to_folder(remote: RemoteSnapshot, folder: Path, settings: HubSettings, on_notice: Notice) -> Path:
    """Make `folder` hold every wanted file of a snapshot; what the cache holds is copied from there.

    All files are hashed each time: unlike those of the cache, these are the user's to change.

    Raises:
        ModelUnavailableError, CheckpointError: as `download.fetch`.
        UsageError: the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--local-dir {quote(str(folder))} is not a folder", fix="name a folder")
    with errors_of(remote.hub_id, settings):
        folder.mkdir(parents=True, exist_ok=True)
        places = {}
        for file in remote.files:
            place = folder / file.name
            if not _is_right(file, place, on_notice):
                _copy_from_cache(blob_path(remote, file, settings), place)
                places[file] = place
        fetch_files(remote, places, settings, on_notice)
    return folder


def _is_right(file: RemoteFile, place: Path, on_notice: Notice) -> bool:
    """Whether a file is there with the hub's content; one with another content makes way."""
    if not place.is_file():
        return False
    if place.stat().st_size == file.size and has_digest(place, file.digest):
        return True
    on_notice(f"{quote(str(place))} is not the hub's {file.name}; fetching that")
    place.unlink()
    return False


def _copy_from_cache(blob: Path, place: Path) -> None:
    """As a part that lacks nothing: its hash is checked before it gets its name."""
    if blob.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(blob, partial_path(place))
