"""From what the user typed to a folder with a model: bundled, local, or from the hub.

Knows no torch and reads no weights; what is in the files is for `model/` to judge. Called by every front end
before an engine is built.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmcli.errors import CheckpointError, UsageError, quote
from llmcli.hub.folder import check_folder, python_files
from llmcli.hub.names import HubId, parse_hub_id
from llmcli.hub.search import nearest_cached
from llmcli.hub.settings import HubSettings, hub_settings
from llmcli.nearest import did_you_mean

if TYPE_CHECKING:
    from llmcli.hub.download import BeforeFetch

BUNDLED_NAME = "tiny-chat"


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model on this disk.

    Attributes:
        name: as shown: "owner/name", the folder as typed, or "tiny-chat".
        path: folder with config.json, *.safetensors and tokenizer.json.
        revision: commit of a model from the hub.
        source: where it came from.
    """

    name: str
    path: Path
    revision: str | None
    source: Literal["bundled", "folder", "hub"]


def resolve_model(
    name: str | None,
    *,
    revision: str | None = None,
    offline: bool = False,
    token: str | None = None,
    on_notice: Callable[[str], None] | None = None,
    settings: HubSettings | None = None,
    before_fetch: "BeforeFetch | None" = None,
) -> LocalModel:
    """Find a model, fetching it from the hub when it is not here.

    Args:
        name: `owner/name`, `owner/name@revision`, an existing folder, or None for the bundled model.
        revision: branch, tag or commit of a hub model.
        offline: open no connection.
        token: for the hub, instead of the saved one.
        on_notice: told, one line at a time, what a person may want to know; progress bars go to stderr.
        settings: the hub and its cache, instead of the user's own.
        before_fetch: told what is about to be fetched, when weights must come; what it raises stops that.

    Raises:
        UsageError: `name` is neither an id nor a folder.
        CheckpointError: the folder or repository holds no model that llmcli reads, or a damaged file.
        ModelUnavailableError: the hub does not give it.
    """
    notice = on_notice or (lambda line: None)
    if name is None or name == BUNDLED_NAME:
        _refuse_revision(name or BUNDLED_NAME, revision)
        return bundled_model()
    if name and os.path.isdir(name):
        _refuse_revision(name, revision)
        return _folder_model(name, notice)
    if name and os.path.isfile(name):
        raise UsageError(
            f"model {quote(name)!r} is a file, not owner/name or an existing folder",
            why="a single .gguf, .bin or .safetensors file is not a whole model for llmcli",
            fix="name the folder that holds config.json, tokenizer.json and *.safetensors",
        )
    hub_id = _hub_id(name, revision, settings)

    from llmcli.hub.download import obtain

    folder = obtain(hub_id, settings or hub_settings(offline=offline, token=token), notice, before_fetch)
    return LocalModel(name=hub_id.repo, path=folder, revision=folder.name, source="hub")


def find_local(
    name: str | None, *, revision: str | None = None, settings: HubSettings | None = None
) -> LocalModel | None:
    """Like `resolve_model`, but fetches and hashes nothing: None when the cache lacks a hub model."""
    if name is None or name == BUNDLED_NAME or os.path.exists(name):
        return resolve_model(name, revision=revision)
    hub_id = _hub_id(name, revision, settings)

    from llmcli.hub.download import find_cached

    folder, missing = find_cached(hub_id, settings or hub_settings(offline=True))
    if folder is None or missing:
        return None
    return LocalModel(name=hub_id.repo, path=folder, revision=folder.name, source="hub")


def tokenizer_folder(
    name: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    on_notice: Callable[[str], None] | None = None,
) -> Path:
    """A folder with the tokenizer of a model, for one that runs elsewhere: no weights are fetched.

    Arguments and errors are those of `resolve_model`.
    """
    here = find_local(name, revision=revision)
    if here is not None:
        return here.path
    hub_id, settings = _hub_id(name, revision, None), hub_settings(offline=offline)

    from llmcli.hub.download import fetch, find_cached
    from llmcli.hub.failures import not_cached
    from llmcli.hub.remote import Patterns, list_remote

    cached, missing = find_cached(hub_id, settings)
    if settings.offline:
        if cached is None:
            raise not_cached(hub_id, settings, missing)
        return cached
    remote = list_remote(hub_id, settings, Patterns(exclude=("*.safetensors", "*.index.json")))
    return fetch(remote, settings, on_notice or (lambda line: None))


def bundled_model() -> LocalModel:
    """The small chat model that comes with the package."""
    folder = Path(__file__).resolve().parent.parent / "assets" / "tiny_chat"
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"the bundled model is not in this installation: {quote(str(folder))}",
            fix="reinstall llmcli, or name another model",
        )
    return LocalModel(name=BUNDLED_NAME, path=folder, revision=None, source="bundled")


def _hub_id(name: str, revision: str | None, settings: HubSettings | None) -> HubId:
    """As `parse_hub_id`; a name without an owner brings the nearest of what is here."""
    try:
        return parse_hub_id(name, revision)
    except UsageError as error:
        if not name or "/" in name:
            raise
        cache_dir = (settings or hub_settings(offline=True)).cache_dir
        near = did_you_mean(name, [BUNDLED_NAME]) or nearest_cached(name, cache_dir)
        raise UsageError(error.what, why=error.why, fix=near or error.fix) from None


def _folder_model(name: str, notice: Callable[[str], None]) -> LocalModel:
    folder = Path(name)
    check_folder(folder, name)
    if code := python_files(folder):
        notice(f"{quote(name)}: {len(code)} Python files are ignored; llmcli runs no code of a model")
    return LocalModel(name=name, path=folder, revision=None, source="folder")


def _refuse_revision(name: str, revision: str | None) -> None:
    if revision is not None:
        raise UsageError(
            f"--revision {quote(revision)} does not apply to {quote(name)}, which is not a hub id",
            fix="leave --revision out, or name owner/name",
        )
