"""Brings several files of a repository to their places, some at once, each resumed, locked and checked.

Where the places are is for the caller to say: blobs of the cache (`hub/download.py`) or a folder of the user's
(`hub/local_folder.py`). An error or Ctrl-C ends all of them at once and keeps what has arrived.
"""

import contextlib
import queue
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llmcli.config import human_bytes
from llmcli.errors import ModelUnavailableError, quote
from llmcli.hub.progress import DownloadProgress
from llmcli.hub.remote import RemoteSnapshot
from llmcli.hub.settings import HubSettings
from llmcli.hub.snapshot import StoppedError, lock_folder, locked
from llmcli.hub.transfer import RemoteFile, fetch_blob, partial_size
from llmcli.hub.verify import remember

Notice = Callable[[str], None]
GRACE_S = 0.5


def bytes_to_come(places: Mapping[RemoteFile, Path]) -> int:
    """Bytes of the files that are not at their places; those of unfinished parts are here already."""
    return sum(
        max(0, file.size - partial_size(place)) for file, place in places.items() if not place.exists()
    )


def fetch_files(
    remote: RemoteSnapshot, places: Mapping[RemoteFile, Path], settings: HubSettings, on_notice: Notice
) -> None:
    """Fetch each file to its place; it is there only once its hash is right.

    Raises:
        ModelUnavailableError: no space for what is to come.
        CheckpointError: a file arrived damaged twice.
        Exception: of the HTTP client or the file system, for `failures.translate`.
    """
    if not places:
        return
    total, to_come = sum(file.size for file in places), bytes_to_come(places)
    _check_space(remote, to_come, next(iter(places.values())).parent)
    files = f"{len(places)} file{'' if len(places) == 1 else 's'}"
    on_notice(f"fetching {remote.hub_id}: {files}, {human_bytes(total)}")
    stop = threading.Event()
    fetched: list[Path] = []
    progress = DownloadProgress(
        remote.hub_id.repo, total, total - to_come, on_notice, shown=settings.progress
    )
    try:
        with progress:
            job = _Job(remote, settings, progress, stop, fetched)
            tasks = [partial(job.fetch, file, place) for file, place in places.items()]
            run_all(tasks, settings.max_workers, stop)
    except KeyboardInterrupt:
        on_notice("stopped; what has arrived is kept: run the same command again to resume")
        raise
    finally:
        # here, once: the threads would overwrite each other's marks
        blobs = [place for place in fetched if place.is_relative_to(settings.cache_dir)]
        remember(blobs, settings.marks_file)


def run_all(tasks: Sequence[Callable[[], None]], num_threads: int, stop: threading.Event) -> None:
    """Run tasks in threads; the first error, or Ctrl-C, is raised at once, and `stop` tells the other tasks.

    They are waited for a moment only: one that hangs on a silent connection would hold up the user.
    """
    waiting = deque(tasks)
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def next_task() -> Callable[[], None] | None:
        with contextlib.suppress(IndexError):
            return None if stop.is_set() else waiting.popleft()
        return None

    def work() -> None:
        try:
            while task := next_task():
                task()
        except BaseException as error:
            ended.put(error)
        else:
            ended.put(None)

    threads = [
        threading.Thread(target=work, name="llmcli-fetch", daemon=True)
        for _ in range(min(num_threads, len(tasks)))
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            error = ended.get()
            if error is not None:
                raise error
    finally:
        stop.set()
        end = time.monotonic() + GRACE_S
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))


@dataclass(frozen=True)
class _Job:
    """What the threads of one download share; `fetched` collects the places that they filled."""

    remote: RemoteSnapshot
    settings: HubSettings
    progress: DownloadProgress
    stop: threading.Event
    fetched: list[Path]

    def fetch(self, file: RemoteFile, place: Path) -> None:
        """Fetch one file, unless another process does so meanwhile."""
        repo, settings = self.remote.hub_id.repo, self.settings
        url = f"{settings.endpoint}/{repo}/resolve/{self.remote.commit}/{file.name}"
        lock = lock_folder(settings.repo_dir(repo), settings) / f"{file.digest}.lock"
        with locked(lock, lambda: self._waits(file), self.stop):
            if place.exists():
                return
            place.parent.mkdir(parents=True, exist_ok=True)
            with self.progress.file(file.name, file.size, partial_size(place)) as count:

                def on_bytes(num_bytes: int) -> None:
                    count(num_bytes)
                    if self.stop.is_set():
                        raise StoppedError

                fetch_blob(file, url, place, settings, on_bytes)
            self.fetched.append(place)

    def _waits(self, file: RemoteFile) -> None:
        self.progress.say(f"another process is fetching {file.name}; waiting for it")


def free_space(folder: Path) -> int:
    """Free bytes on the disk of a folder that may not be there yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _check_space(remote: RemoteSnapshot, need: int, folder: Path) -> None:
    free = free_space(folder)
    if need > free:
        raise ModelUnavailableError(
            f"{remote.hub_id} needs {human_bytes(need)} more, and {quote(str(folder))} has"
            f" {human_bytes(free)} free",
            fix="remove models (`llmcli list`, `llmcli rm`), or set HF_HOME to another disk",
        )
