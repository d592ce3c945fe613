"""Disks and folders: room for models, the cache's health, permissions, the configuration files."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmcli.config import GIB, human_bytes
from llmcli.errors import LLMCliError, quote
from llmcli.hub.health import CacheHealth
from llmcli.jobs.doctor.check import Finding, failed, failed_by, passed, warned

LEAST_DISK = GIB
LITTLE_DISK = 10 * GIB  # two or three 7B models in 4 bits
MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The disk under a folder, in bytes; the folder itself need not exist yet."""

    folder: Path
    free: int
    total: int


def read_disk(folder: Path) -> DiskFacts:
    """Of the nearest folder that exists."""
    usage = shutil.disk_usage(_existing(folder))
    return DiskFacts(folder, usage.free, usage.total)


def check_disk(facts: DiskFacts) -> Finding:
    """There is room for a model."""
    found = f"{human_bytes(facts.free)} of {human_bytes(facts.total)} free at {quote(str(facts.folder))}"
    make_room = (
        "llmcli list shows what models take, llmcli rm removes one; or set HF_HUB_CACHE to another disk"
    )
    if facts.free < LEAST_DISK:
        return failed(f"only {found}", make_room)
    return warned(f"only {found}", make_room) if facts.free < LITTLE_DISK else passed(found)


def check_cache(health: CacheHealth) -> Finding:
    """Nothing in the hub's cache is half there."""
    models = f"{health.num_models} model{'s' * (health.num_models != 1)}"
    problems, details = [], []
    if health.unfinished:
        size = human_bytes(sum(health.unfinished.values()))
        problems.append(f"{size} of unfinished downloads ({_some(list(health.unfinished))})")
    if health.incomplete:
        problems.append(f"files are missing in {_some(list(health.incomplete))}")
        details += [f"{quote(name)} lacks {_some(files)}" for name, files in health.incomplete.items()]
    if health.broken_links:
        problems.append(f"{len(health.broken_links)} links to files that are gone")
        details += [quote(str(path)) for path in health.broken_links[:MAX_SHOWN]]
    if not problems:
        return passed(f"{models}, nothing unfinished or broken")
    name = next(iter((*health.unfinished, *health.incomplete)), "")
    if not name:
        name = _model_of(health.broken_links[0])
    fix = f"llmcli pull {quote(name)} completes it, llmcli rm {quote(name)} removes it"
    return warned(f"{models}; {'; '.join(problems)}", fix, *details)


def _model_of(link: Path) -> str:
    folder = next((part for part in link.parts if part.startswith("models--")), "")
    return folder.removeprefix("models--").replace("--", "/", 1)


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """A folder that llmcli writes to.

    Attributes:
        purpose: what is in it, for people.
        blocked_by: the path that can not be written to; None where all is well.
        exposed: files in it with prompts that other users can read.
    """

    path: Path
    purpose: str
    blocked_by: Path | None
    exposed: tuple[Path, ...] = ()


def read_folder(path: Path, purpose: str, private: Sequence[str] = ()) -> FolderFacts:
    """Look whether it, or the nearest folder above it that exists, can be written to.

    Args:
        private: patterns of files in it that nobody else should read.
    """
    nearest = _existing(path)
    writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    exposed = []
    if os.name == "posix" and os.access(path, os.R_OK | os.X_OK):
        files = [file for pattern in private for file in path.glob(pattern) if file.is_file()]
        exposed = [file for file in files if file.stat().st_mode & 0o077 and not _closed(path, file)]
    return FolderFacts(path, purpose, None if writable else nearest, tuple(exposed))


def check_folders(folders: Sequence[FolderFacts]) -> Finding:
    """All can be written to, and no prompt lies open."""
    details = [f"{folder.purpose}: {quote(str(folder.path))}" for folder in folders]
    blocked = [folder for folder in folders if folder.blocked_by is not None]
    if blocked:
        paths = ", ".join(dict.fromkeys(quote(str(folder.blocked_by)) for folder in blocked))
        purposes = ", ".join(folder.purpose for folder in blocked)
        return warned(
            f"no place for {purposes}: {paths} can not be written to",
            f"chown or chmod u+rwx {paths}",
            *details,
        )
    exposed = [file for folder in folders for file in folder.exposed]
    if exposed:
        shown = " ".join(quote(str(file)) for file in exposed[:MAX_SHOWN])
        return warned(f"others may read what you typed: {shown}", f"chmod go-rwx {shown}", *details)
    return passed(f"{len(folders)} folders can be written to", *details)


def _closed(top: Path, file: Path) -> bool:
    """Whether a folder between `top` and a file lets nobody else in."""
    between = [folder for folder in file.parents if folder == top or folder.is_relative_to(top)]
    return any(not folder.stat().st_mode & 0o011 for folder in between)


@dataclass(frozen=True, slots=True)
class ConfigFiles:
    """The configuration files, as they were found when the command line was read.

    Attributes:
        places: where they are, or would be.
        error: why they can not be used; None where they can.
    """

    places: tuple[Path, ...] = ()
    error: Exception | None = None


def check_config_files(files: ConfigFiles) -> Finding:
    """Those that exist hold what options take.

    Raises:
        Exception: they could not be looked for.
    """
    if isinstance(files.error, LLMCliError):
        finding = failed_by(files.error)
        details = (
            *finding.details,
            "a command that needs it stops with this error; here built-in values are used",
        )
        return failed(finding.found, finding.fix or "correct it, or move the file away", *details)
    if files.error is not None:
        raise files.error
    there = [quote(str(path)) for path in files.places if path.is_file()]
    if there:
        return passed(", ".join(there))
    return passed("none, built-in values are used", *(quote(str(path)) for path in files.places))


def _existing(path: Path) -> Path:
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(quote(name, 60) for name in names[:MAX_SHOWN])
    return f"{shown} and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else shown
