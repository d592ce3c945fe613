"""Models with names like the one asked for: in the cache, and on the hub; and quantized copies of a model.

Only ever a courtesy beside another message: what fails here is left out, and the wait is short. Called by
`hub/failures.py`, `hub/cache.py` and the commands that give the fit verdict.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from llmcli.errors import quote
from llmcli.hub.names import is_repo
from llmcli.hub.settings import HubSettings
from llmcli.nearest import nearest

MAX_HITS = 3
MAX_WAIT_S = 4.0
_FORMATS = re.compile(r"[-_.](awq|gptq|gguf|int4|int8|4bit|8bit|fp8|w4a16|bnb)\b.*", re.IGNORECASE)


def nearest_cached(repo: str, cache_dir: Path) -> str:
    """A sentence, did you mean … (in the cache)?, or nothing."""
    return _sentence({"in the cache": _cached_hits(repo, cache_dir)})


def nearest_anywhere(repo: str, settings: HubSettings) -> str:
    """A sentence, did you mean … (in the cache) or … (on the hub)?, or nothing. Three requests at most."""
    cached = _cached_hits(repo, settings.cache_dir)
    there = [name for name in _hub_hits(repo, settings) if name not in cached]
    return _sentence({"in the cache": cached, "on the hub": there})


def _sentence(hits: Mapping[str, list[str]]) -> str:
    parts = [f"{', '.join(map(quote, names))} ({where})" for where, names in hits.items() if names]
    return f"did you mean {' or '.join(parts)}?" if parts else ""


def _cached_hits(repo: str, cache_dir: Path) -> list[str]:
    folders = cache_dir.glob("models--*--*") if cache_dir.is_dir() else []
    names = sorted(folder.name.removeprefix("models--").replace("--", "/", 1) for folder in folders)
    return nearest(repo, (name for name in names if name != repo), MAX_HITS)


def _hub_hits(repo: str, settings: HubSettings) -> list[str]:
    """By the name, by its beginning, by its owner: the first that finds something."""
    owner, _, name = repo.rpartition("/")
    found = _search({"search": name}, settings)
    near = nearest(repo, found, MAX_HITS) or found[:MAX_HITS]
    for query in ({"search": _stem(name)}, {"author": owner}):
        near = near or nearest(repo, _search(query, settings), MAX_HITS)
    return near


def quantized_siblings(repo: str, settings: HubSettings) -> list[str]:
    """AWQ repositories of the same model, the most downloaded first."""
    stem = _FORMATS.sub("", repo.rpartition("/")[2])
    found = _search({"search": stem, "filter": "awq"}, settings)
    return [name for name in found if name != repo][:MAX_HITS]


def _search(query: Mapping[str, str], settings: HubSettings) -> list[str]:
    """Names of repositories; empty where the hub does not answer well or soon."""
    from huggingface_hub import get_session

    if settings.offline or not all(query.values()):
        return []
    try:
        answer = get_session().get(
            f"{settings.endpoint}/api/models",
            params={**query, "limit": "50", "sort": "downloads"},
            headers=settings.headers(),
            timeout=min(MAX_WAIT_S, settings.timeout_s),
        )
        names = [str(entry["id"]) for entry in answer.json()]
    except Exception:  # a courtesy: the message that it would go with matters more
        return []
    return [name for name in names if is_repo(name)]


def _stem(name: str) -> str:
    """The longest words of a name's beginning: what is left of a mistyped end."""
    return "-".join(re.split(r"[-_.]", name)[:2])
