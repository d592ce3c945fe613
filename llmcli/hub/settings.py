"""Where the hub is, where its cache is, and how to reach them.

The defaults are huggingface_hub's own, so that HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE
mean what they mean elsewhere; nothing here reads the environment itself. Called by the commands and by
`hub/models.py`; tests make their own.
"""

from dataclasses import dataclass, field
from pathlib import Path

from llmcli.errors import ModelUnavailableError, quote

TIMEOUT_S = 10.0
RETRY_WAIT_S = 1.0
MAX_WORKERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """One hub and one cache.

    Attributes:
        cache_dir: huggingface_hub's cache, with one folder `models--owner--name` per repository.
        endpoint: address of the hub, without a slash at the end.
        token: sent to the endpoint's host only; None sends none.
        offline: open no connection at all.
        marks_file: remembers which cached files had the right hash.
        timeout_s: longest silence of the network.
        retry_wait_s: pause before the first of a file's retries; later ones wait longer.
        progress: tell how far a download is: bars on stderr when it is a terminal, lines elsewhere.
        max_workers: files that are fetched at once.
        hides_login: whether the token is not the one that `hf auth login` saved, though there is one.
    """

    cache_dir: Path
    endpoint: str
    marks_file: Path
    token: str | None = field(default=None, repr=False)
    offline: bool = False
    timeout_s: float = TIMEOUT_S
    retry_wait_s: float = RETRY_WAIT_S
    progress: bool = True
    max_workers: int = MAX_WORKERS
    hides_login: bool = False

    def headers(self) -> dict[str, str]:
        """Headers for the endpoint; the HTTP client drops the token when it follows to another host."""
        return {"User-Agent": "llmcli"} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})

    def repo_dir(self, repo: str) -> Path:
        """Folder of a repository in the cache, in the hub's documented layout."""
        return self.cache_dir / ("models--" + repo.replace("/", "--"))


def hub_settings(
    *,
    offline: bool = False,
    token: str | None = None,
    progress: bool = True,
    max_workers: int = MAX_WORKERS,
) -> HubSettings:
    """The settings of this user. Reads the saved token, unless offline or one is given.

    Raises:
        ModelUnavailableError: the saved token can not be read or renewed.
    """
    import platformdirs
    from huggingface_hub import constants

    off = offline or bool(constants.HF_HUB_OFFLINE)
    token = None if off else token or _own_token()
    return HubSettings(
        cache_dir=Path(constants.HF_HUB_CACHE).expanduser(),
        endpoint=constants.ENDPOINT.rstrip("/"),
        marks_file=Path(platformdirs.user_cache_dir("llmcli")) / "verified.json",
        token=token,
        offline=off,
        progress=progress and not constants.HF_HUB_DISABLE_PROGRESS_BARS,
        max_workers=max_workers,
        hides_login=token is not None and _saved_login(Path(constants.HF_TOKEN_PATH)) not in ("", token),
    )


def _own_token() -> str | None:
    from huggingface_hub import get_token  # brings a whole HTTP client: 0.1 s

    try:
        return get_token()
    except Exception as error:  # a file that can not be read, or a failed exchange with a login server
        raise ModelUnavailableError(
            f"can not read the saved hub token: {quote(str(error))}", fix="run `hf auth login`"
        ) from error


def _saved_login(path: Path) -> str:
    """The token that `hf auth login` saved, or nothing."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
