"""The grammar of a model name on the hub: `owner/name` or `owner/name@revision`.

Knows nothing of folders, of the network or of the cache. Called by `hub/models.py` and the commands.
"""

import re
from dataclasses import dataclass

from llmcli.errors import UsageError, quote

MAX_REPO_CHARS = 96
MAX_REVISION_CHARS = 200
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubId:
    """A repository on the hub, and the branch, tag or commit asked for (None is its main branch)."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"

    @property
    def is_commit(self) -> bool:
        """A full commit hash names its content for ever, so that the cache needs no refresh."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None


def parse_hub_id(text: str, revision: str | None = None) -> HubId:
    """Read `owner/name` or `owner/name@revision`.

    Args:
        text: the name as typed.
        revision: one given apart, by an option.

    Raises:
        UsageError: not such a name, or two different revisions.
    """
    repo, at, suffix = text.partition("@")
    if not is_repo(repo):
        raise UsageError(
            f"model {quote(text)!r} is not owner/name or an existing folder",
            why=f"each part takes letters, digits, - _ . and begins with a letter; {MAX_REPO_CHARS} in all",
            fix="for example: llmcli chat TheBloke/Llama-2-7B-Chat-AWQ, or a folder like ./my-model",
        )
    if at and revision is not None and suffix != revision:
        raise UsageError(
            f"two revisions for {repo}: @{quote(suffix)} and --revision {quote(revision)}",
            fix="give one of them",
        )
    return HubId(repo, checked_revision(suffix if at else revision))


def checked_revision(revision: str | None) -> str | None:
    """Return `revision` if it can be a branch, tag or commit; UsageError otherwise."""
    if revision is None:
        return None
    odd = ".." in revision or "//" in revision or revision.endswith(("/", ".", ".lock"))
    if odd or len(revision) > MAX_REVISION_CHARS or not _REVISION.fullmatch(revision):
        raise UsageError(
            f"revision {quote(revision)!r} is not a branch, tag or commit",
            fix="use a name like main, v1.0 or a 40-digit commit",
        )
    return revision


def is_repo(text: str) -> bool:
    """Whether `text` can be the name of a repository: owner/name."""
    parts = text.split("/")
    if len(parts) != 2 or len(text) > MAX_REPO_CHARS or ".." in text or "--" in text:
        return False
    return all(_PART.fullmatch(part) for part in parts) and not text.endswith(".git")
