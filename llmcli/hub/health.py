"""The state of the hub's cache on disk, and whether the hub answers: facts for `llmcli doctor`.

Changes nothing and fetches no file. Knows no check; `jobs/doctor/` judges.
"""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from llmcli.errors import LLMCliError
from llmcli.hub.failures import class_names, translate
from llmcli.hub.folder import missing_files
from llmcli.hub.names import HubId
from llmcli.hub.settings import HubSettings

TokenState = Literal["none", "accepted", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class CacheHealth:
    """What is amiss in the cache.

    Attributes:
        num_models: repositories of models.
        unfinished: model -> bytes of downloads that did not end.
        broken_links: files in snapshots whose content is gone.
        incomplete: model -> files that its main branch lacks to be loaded; other formats are not counted.
    """

    num_models: int
    unfinished: dict[str, int]
    broken_links: tuple[Path, ...]
    incomplete: dict[str, tuple[str, ...]]


def read_cache_health(cache_dir: Path) -> CacheHealth:
    """Look at names and links in the cache; reads no weights.

    Raises:
        OSError: the folder can not be read.
    """
    folders = sorted(cache_dir.glob("models--*--*")) if cache_dir.is_dir() else []
    unfinished: dict[str, int] = {}
    broken: list[Path] = []
    incomplete: dict[str, tuple[str, ...]] = {}
    for folder in folders:
        name = folder.name.removeprefix("models--").replace("--", "/", 1)
        if parts := list(folder.glob("blobs/*.incomplete")):
            unfinished[name] = sum(part.stat().st_size for part in parts)
        broken += [
            path for path in folder.glob("snapshots/*/**/*") if path.is_symlink() and not path.exists()
        ]
        if missing := _missing(folder):
            incomplete[name] = missing
    return CacheHealth(len(folders), unfinished, tuple(broken), incomplete)


def _missing(folder: Path) -> tuple[str, ...]:
    """What the main branch lacks; nothing for a repository without safetensors, which is of another format."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        commit = (folder / "refs" / "main").read_text(encoding="ascii").strip()
        snapshot = folder / "snapshots" / commit
        if snapshot.is_dir() and any(path.name.endswith(".safetensors") for path in snapshot.iterdir()):
            return tuple(missing_files(snapshot))
    return ()


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """What the hub said to one small request.

    Attributes:
        seconds: until the answer or the error.
        error: why there was none, with its fix; or None.
        status: HTTP status of the answer; 0 without one.
        token: whether one was sent, and what the hub made of it.
        account: whose token it is; empty where the hub did not tell.
    """

    seconds: float
    error: LLMCliError | None
    status: int
    token: TokenState
    account: str = ""


def ask_hub(settings: HubSettings) -> HubAnswer:
    """One request to the address that tells whose a token is; without a token a hub refuses it, which is an answer."""
    from huggingface_hub import get_session

    started = time.monotonic()
    try:
        response = get_session().get(
            f"{settings.endpoint}/api/whoami-v2", headers=settings.headers(), timeout=settings.timeout_s
        )
    except Exception as error:  # of the HTTP client, whose classes differ by version
        told = translate(error, HubId("any/model"), settings)
        return HubAnswer(time.monotonic() - started, told, 0, "unknown" if settings.token else "none")
    seconds = time.monotonic() - started
    token: TokenState = "unknown" if settings.token else "none"
    if settings.token and response.status_code in (401, 403):
        token = "refused"
    try:
        body = response.json()
        account = str(body["name"]) if response.status_code == 200 else ""
    except (ValueError, KeyError, TypeError) as error:
        page = None if response.status_code >= 400 else translate(error, HubId("any/model"), settings)
        return HubAnswer(seconds, page, response.status_code, token)
    return HubAnswer(seconds, None, response.status_code, "accepted" if account else token, account)


def check_access(hub_id: HubId, settings: HubSettings) -> None:
    """Ask for the headers of a model's config.json, which a gated repository gives to nobody without access.

    Raises:
        LLMCliError: there is no such model, no access to it, or no answer.
    """
    from huggingface_hub import get_hf_file_metadata

    revision = quote(hub_id.revision or "main", safe="")
    url = f"{settings.endpoint}/{hub_id.repo}/resolve/{revision}/config.json"
    try:
        get_hf_file_metadata(url, token=settings.token or False, timeout=settings.timeout_s)
    except Exception as error:
        if "RemoteEntryNotFoundError" in class_names(error):
            return  # no config.json: not for llmcli, but no lack of access
        raise translate(error, hub_id, settings) from error


def has_saved_login() -> bool:
    """Whether `hf auth login` has left a token on this machine; it is not read."""
    from huggingface_hub import constants

    return Path(constants.HF_TOKEN_PATH).is_file()
