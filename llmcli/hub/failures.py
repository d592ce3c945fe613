"""Turns what can go wrong between here and the hub into llmcli's own errors, each with its own message.

Errors of huggingface_hub and of its HTTP client (httpx or httpx2, by its version) are told apart by class
name, so that no version of either is imported. Knows nothing of what was being fetched but its id. Called by
`hub/download.py` and `hub/transfer.py`.
"""

import errno
import json
import re

from llmcli.errors import (
    GatedModelError,
    LLMCliError,
    ModelNotFoundError,
    ModelUnavailableError,
    OfflineError,
    quote,
)
from llmcli.hub.names import HubId
from llmcli.hub.search import nearest_anywhere, nearest_cached
from llmcli.hub.settings import HubSettings

_UNREACHABLE = {"ConnectError", "NetworkError", "ProtocolError", "ConnectionError", "TransportError"}


class UnexpectedAnswerError(Exception):
    """The hub's address answered, but not as a hub does; the text says how."""


def translate(error: Exception, hub_id: HubId, settings: HubSettings) -> LLMCliError:
    """The error to show for `error`, which came up while `hub_id` was looked up or fetched."""
    if isinstance(error, LLMCliError):
        return error
    kinds = class_names(error)
    if "GatedRepoError" in kinds:
        return _gated(hub_id, settings)
    if "RevisionNotFoundError" in kinds:
        return ModelNotFoundError(
            f"{hub_id.repo} has no revision {quote(hub_id.revision or 'main')!r}",
            fix=f"see the branches at {settings.endpoint}/{hub_id.repo}/tree/main",
        )
    if "DisabledRepoError" in kinds:
        return ModelUnavailableError(
            f"{hub_id.repo} was disabled by its owner or by the hub",
            why="nobody can fetch it, whatever the token",
            fix=nearest_cached(hub_id.repo, settings.cache_dir) or "look for another repository of the model",
        )
    if status_of(error) == 401 and settings.token:
        return ModelUnavailableError(
            f"{settings.endpoint} does not accept the token that was sent (401)",
            why=f"it may be mistyped or expired; {_whose_token(settings)}",
            fix="unset HF_TOKEN to use the saved login"
            if settings.hides_login
            else "run `hf auth login` again, or unset HF_TOKEN",
        )
    if "RemoteEntryNotFoundError" in kinds:
        return ModelUnavailableError(
            f"{settings.endpoint} lists a file of {hub_id} and does not have it", fix="try again later"
        )
    if "RepositoryNotFoundError" in kinds or status_of(error) in (401, 404):
        return _not_found(hub_id, settings)
    if status_of(error) is not None:
        return _bad_status(error, hub_id, settings)
    if isinstance(error, (UnexpectedAnswerError, json.JSONDecodeError, TypeError, KeyError, AttributeError)):
        known = isinstance(error, UnexpectedAnswerError)
        why = str(error) if known else "it is not the JSON that a hub sends"
        return ModelUnavailableError(
            f"{settings.endpoint} gave an answer that is not a hub's: {quote(why)}",
            why="often a login page of the network, a proxy, or a wrong HF_ENDPOINT",
            fix="open the address in a browser, then run the same command again",
        )
    return _no_answer(error, kinds, hub_id, settings)


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed a moment later: a broken or silent connection, or a 5xx status."""
    if status_of(error) is not None:
        return is_fault_of_server(error)
    return bool(class_names(error) & (_UNREACHABLE | {"TimeoutException"}))


def is_fault_of_server(error: Exception) -> bool:
    """Whether the server answered, and said that it failed: a 5xx status."""
    status = status_of(error)
    return status is not None and status >= 500


def status_of(error: Exception) -> int | None:
    """The HTTP status that an error of the hub's client carries."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def class_names(error: Exception) -> set[str]:
    """Names of an error's class and of all its bases."""
    return {cls.__name__ for cls in type(error).__mro__}


def not_cached(hub_id: HubId, settings: HubSettings, missing: list[str]) -> OfflineError:
    """Offline, and the cache lacks the model or a part of it."""
    part = f"; missing: {quote(', '.join(missing[:5]))}" if missing else ""
    return OfflineError(
        f"{hub_id} is not {'complete ' if missing else ''}in the cache, and the network is off{part}",
        why=nearest_cached(hub_id.repo, settings.cache_dir)
        or f"the cache is {quote(str(settings.cache_dir))}",
        fix=f"run `llmcli pull {hub_id}` without --offline and without HF_HUB_OFFLINE",
    )


def _gated(hub_id: HubId, settings: HubSettings) -> GatedModelError:
    page = f"{settings.endpoint}/{hub_id.repo}"
    if settings.token is None:
        return GatedModelError(
            f"{hub_id.repo} is gated, and no token was sent",
            why="its owner gives access to accounts that accepted the licence",
            fix=f"accept the licence at {page}, then run `hf auth login`",
        )
    account = _account(settings)
    return GatedModelError(
        f"{hub_id.repo} is gated, and {account} has no access to it",
        why=f"a token was sent; {_whose_token(settings)}",
        fix=f"accept the licence at {page} with {account}, then run the same command again",
    )


def _not_found(hub_id: HubId, settings: HubSettings) -> ModelNotFoundError:
    if settings.token is None:
        why = "no token was sent: a private model is found only after `hf auth login`"
    else:
        why = "a token was sent, but its account may have no access to a private model"
    return ModelNotFoundError(
        f"there is no model {hub_id.repo} at {settings.endpoint}",
        why=why,
        fix=nearest_anywhere(hub_id.repo, settings) or "check the spelling of owner and name",
    )


def _bad_status(error: Exception, hub_id: HubId, settings: HubSettings) -> ModelUnavailableError:
    status = status_of(error)
    if status == 429:
        wait = _seconds_to_wait(error)
        login = "" if settings.token else "; `hf auth login` raises the limit"
        return ModelUnavailableError(
            f"{settings.endpoint} refuses {hub_id.repo} for now: too many requests (429)",
            why="finished parts are kept",
            fix=f"try again in {f'{wait} seconds' if wait else 'some minutes'}{login}",
        )
    if status == 403:
        return GatedModelError(
            f"{settings.endpoint} does not allow access to {hub_id.repo} (403)",
            why="the token lacks a permission" if settings.token else "no token was sent",
            fix="run `hf auth login` with a token that may read this model",
        )
    server = "a fault of the server" if status is not None and status >= 500 else "not expected here"
    return ModelUnavailableError(
        f"{settings.endpoint} answered {hub_id.repo} with status {status}, {server}",
        fix="run the same command again later; finished parts are kept",
    )


def _no_answer(error: Exception, kinds: set[str], hub_id: HubId, settings: HubSettings) -> LLMCliError:
    text = " ".join(str(e) for e in (error, error.__cause__, error.__context__) if e is not None)
    fix = "check the network; a model in the cache works with --offline (see `llmcli list`)"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelUnavailableError(
            f"the disk is full: {quote(str(settings.cache_dir))}",
            fix="free space (`llmcli list`, `llmcli rm`), or set HF_HOME; finished parts are kept",
        )
    if isinstance(error, PermissionError):
        return ModelUnavailableError(
            f"can not write to the model cache: {quote(str(error.filename or settings.cache_dir))}",
            fix="make the folder writable, or set HF_HOME to another one",
        )
    if "OfflineModeIsEnabled" in kinds:
        return not_cached(hub_id, settings, [])
    if "ProxyError" in kinds:
        return OfflineError(
            f"the proxy does not let {settings.endpoint} through: {quote(text, 120)}", fix=fix
        )
    if "TimeoutException" in kinds:
        what = "did not accept a connection" if "ConnectTimeout" in kinds else "stopped sending"
        return OfflineError(f"{settings.endpoint} {what} for {settings.timeout_s:g} s (timeout)", fix=fix)
    if any(part in text for part in ("getaddrinfo", "service not known", "name resolution", "nodename")):
        return OfflineError(f"the name of {settings.endpoint} is not known here (DNS)", fix=fix)
    if "CERTIFICATE" in text or "SSL" in text or "TLS" in text:
        return OfflineError(f"no secure connection to {settings.endpoint}: {quote(text, 120)}", fix=fix)
    if "refused" in text.lower():
        return OfflineError(f"{settings.endpoint} refused the connection", fix=fix)
    if kinds & _UNREACHABLE:
        return OfflineError(f"the connection to {settings.endpoint} broke: {quote(text, 120)}", fix=fix)
    if isinstance(error, OSError):
        return ModelUnavailableError(f"could not store {hub_id}: {quote(str(error))}")
    return ModelUnavailableError(
        f"could not fetch {hub_id}: {type(error).__name__}: {quote(str(error), 120)}"
    )


def _seconds_to_wait(error: Exception) -> str:
    """As the server's headers tell: Retry-After, or the t of RateLimit: "api";r=0;t=55."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    after = str(headers.get("retry-after", ""))
    limit = re.search(r";\s*t\s*=\s*(\d{1,6})", str(headers.get("ratelimit", "")))
    return after if re.fullmatch(r"\d{1,6}", after) else limit[1] if limit else ""


def _whose_token(settings: HubSettings) -> str:
    if settings.hides_login:
        return "it is not the one saved by `hf auth login`: --token or HF_TOKEN goes before that"
    return "one in HF_TOKEN goes before the login saved by `hf auth login`"


def _account(settings: HubSettings) -> str:
    """Whose token it is, if the hub tells."""
    from huggingface_hub import get_session

    try:
        url = f"{settings.endpoint}/api/whoami-v2"
        name = get_session().get(url, headers=settings.headers(), timeout=settings.timeout_s).json()["name"]
    except Exception:  # only a courtesy; the error being told matters more than this one
        return "the account of the token"
    return f"account {quote(name, 60)}"
