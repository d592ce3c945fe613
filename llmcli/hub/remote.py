"""What a repository of the hub has, and what of it is wanted: names, sizes, hashes, licence and gate.

One request tells all of this. Only what llmcli reads is wanted, unless patterns ask for more: never code, never
pickled weights by itself. Fetches no file. Called by `hub/download.py`, `llmcli pull` and `llmcli show`.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from llmcli.errors import LLMCliError, UsageError, quote
from llmcli.hub.failures import UnexpectedAnswerError, is_fault_of_server, translate
from llmcli.hub.folder import no_weights
from llmcli.hub.names import HubId
from llmcli.hub.settings import HubSettings
from llmcli.hub.transfer import RemoteFile

SILENT = 50  # a level of Python's logging
MAX_TRIES = 3
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_EXACT = {
    "config.json",
    "generation_config.json",
    "quant_config.json",
    "quantize_config.json",
    "special_tokens_map.json",
    "model.safetensors.index.json",
}
_TOKENIZER = re.compile(r"(tokenizer|chat_template)[A-Za-z0-9_-]*\.(json|model|jinja)")
_LICENCE = re.compile(r"(licen[cs]e|notice|use_policy)[A-Za-z0-9_.-]*", re.IGNORECASE)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class RemoteSnapshot:
    """One commit of a repository.

    Attributes:
        files: those that are wanted.
        num_skipped: how many others there are.
        licence: as the model's card names it, such as "apache-2.0"; None where it does not say.
        gate: "" for a model open to all, else how access is given: "auto" or "manual".
        licence_files: small texts that go with the model, by name; not among the wanted ones.
        partial: whether patterns chose the files, so that they may be no whole model.
    """

    hub_id: HubId
    commit: str
    files: tuple[RemoteFile, ...]
    num_skipped: int
    licence: str | None = None
    gate: str = ""
    licence_files: tuple[RemoteFile, ...] = ()
    partial: bool = False

    @property
    def size(self) -> int:
        """Bytes of the wanted files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Patterns:
    """Globs over a repository's file names: `include` replaces the usual choice, `exclude` takes from it."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def choose(self, names: Iterable[str]) -> list[str]:
        """The wanted ones among a repository's file names."""
        names = list(names)
        chosen = (
            sorted(name for name in names if _is_safe(name) and _matches(name, self.include))
            if self.include
            else needed_files(names)
        )
        return [name for name in chosen if not _matches(name, self.exclude)]


def needed_files(names: Iterable[str]) -> list[str]:
    """Of a repository's files, those that llmcli reads: settings, tokenizer, template, one set of weights."""
    plain = [name for name in names if _PLAIN_NAME.fullmatch(name)]
    weights = [name for name in plain if name.endswith(".safetensors") and not name.startswith("adapter_")]
    standard = [name for name in weights if name.startswith("model")]  # some also ship "consolidated" copies
    settings = [name for name in plain if name in _EXACT or _TOKENIZER.fullmatch(name)]
    return sorted(settings) + sorted(standard or weights)


def list_remote(
    hub_id: HubId,
    settings: HubSettings,
    patterns: Patterns = Patterns(),
) -> RemoteSnapshot:
    """Ask the hub for the files of a revision: one request, and two more where the server stumbles.

    Raises:
        ModelUnavailableError: whatever keeps the hub from answering.
        CheckpointError: nothing there that llmcli can read.
        UsageError: no file matches the patterns.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=settings.endpoint, token=settings.token or False)
    partial = bool(patterns.include or patterns.exclude)
    with errors_of(hub_id, settings):
        info = _patiently(
            lambda: api.model_info(
                hub_id.repo, revision=hub_id.revision, files_metadata=True, timeout=settings.timeout_s
            ),
            settings,
        )
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
        commit = str(info.sha)
        if not _COMMIT.fullmatch(commit):
            raise UnexpectedAnswerError(f"commit {commit[:60]!r}")
        names = patterns.choose(siblings)
        files = tuple(_remote_file(siblings[name]) for name in names)
        licences = [name for name in sorted(siblings) if _LICENCE.fullmatch(name)]
        licence_files = tuple(_remote_file(siblings[name]) for name in licences)
    if partial and not names:
        shown = " ".join(quote(pattern, 60) for pattern in (*patterns.include, *patterns.exclude))
        raise UsageError(
            f"no file of {hub_id} is left by the patterns {shown}",
            why=f"it has {quote(', '.join(sorted(siblings)[:12]))}",
            fix="a pattern like 'tokenizer*' is matched with the whole name; folders count: 'original/*'",
        )
    if not partial and ("config.json" not in names or not _has_weights(names)):
        raise no_weights(str(hub_id), list(siblings))
    return RemoteSnapshot(
        hub_id,
        commit,
        files,
        len(siblings) - len(files),
        licence=_licence(info),
        gate=str(info.gated) if getattr(info, "gated", None) in ("auto", "manual") else "",
        licence_files=licence_files,
        partial=partial,
    )


@contextlib.contextmanager
def errors_of(hub_id: HubId, settings: HubSettings) -> Iterator[None]:
    """Foreign errors become ours, and the client says nothing itself."""
    with silent_client():
        try:
            yield
        except LLMCliError:
            raise
        except Exception as error:
            raise translate(error, hub_id, settings) from error


@contextlib.contextmanager
def silent_client() -> Iterator[None]:
    """The warnings of the hub's client, which may carry a server's raw text or a traceback, stay unsaid."""
    from huggingface_hub.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(SILENT)
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _patiently(ask: Callable[[], Answer], settings: HubSettings) -> Answer:
    """Ask again, twice, when the server says that the fault is its own."""
    for failures in range(1, MAX_TRIES):
        try:
            return ask()
        except Exception as error:
            if not is_fault_of_server(error):
                raise
        time.sleep(settings.retry_wait_s * failures)
    return ask()


def _remote_file(sibling: Any) -> RemoteFile:
    digest = sibling.lfs["sha256"] if sibling.lfs else sibling.blob_id
    size = sibling.lfs["size"] if sibling.lfs else sibling.size
    if not isinstance(size, int) or size < 0 or not _DIGEST.fullmatch(str(digest)):
        raise UnexpectedAnswerError(f"{sibling.rfilename} has size {size!r} and hash {digest!r}")
    return RemoteFile(sibling.rfilename, size, digest)


def _licence(info: Any) -> str | None:
    """The licence's short name, from the tags or from the card; models with terms of their own name those."""
    card_data: Any = getattr(info, "card_data", None)
    card = card_data.to_dict() if hasattr(card_data, "to_dict") else {}
    tagged = [str(tag).removeprefix("license:") for tag in info.tags or [] if str(tag).startswith("license:")]
    name = card.get("license") or next(iter(tagged), None)
    if name == "other":
        name = card.get("license_name") or name
    if isinstance(name, list):
        name = ", ".join(map(str, name))
    return quote(name, 60) if isinstance(name, str) and name else None


def _has_weights(names: Sequence[str]) -> bool:
    return any(name.endswith(".safetensors") for name in names)


def _is_safe(name: str) -> bool:
    """Whether every part of a path is a plain name: nothing that leads out of the model's folder."""
    return all(_PLAIN_NAME.fullmatch(part) for part in name.split("/"))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
