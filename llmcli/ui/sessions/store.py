"""The folder of saved chats: one file per session, made when the first message is sent, only added to.

Owns names, permissions, locks and torn lines; what the records mean is `sessions/records.py`'s. Used by the
chat through `SessionLog`, and by `llmcli sessions`.
"""

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmcli import strict_json
from llmcli.errors import OutputError, RequestError, UsageError, quote
from llmcli.ui.conversation import Turn
from llmcli.ui.sessions.records import VERSION, ChatSetup, Record, SavedChat, changes, replay, setup_record

SUFFIX = ".jsonl"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Clock = Callable[[], datetime]


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One saved chat as listed: `modified` in seconds since the epoch; `problem` tells why it can not be read."""

    id: str
    path: str
    model: str
    title: str
    turns: int
    modified: float
    size: int
    problem: str = ""


class SessionFile:
    """A session that is being written.

    Args:
        meta: fields of the meta record; None when the file has one already.
    """

    def __init__(self, path: Path, meta: Record | None, clock: Clock = now) -> None:
        self.path = path
        self._known = SavedChat(ChatSetup(""))  # what the records in the file give
        self._meta = meta
        self._clock = clock
        self._descriptor: int | None = None

    @property
    def id(self) -> str:
        """The session's name."""
        return self.path.name.removesuffix(SUFFIX)

    @property
    def exists(self) -> bool:
        """Whether anything has been written."""
        return self._meta is None

    def record(self, chat: SavedChat) -> None:
        """Write what has changed; nothing before the first message.

        Raises:
            OutputError: the file can not be written.
            UsageError: another process writes this session.
        """
        if self._meta is not None and not chat.turns:
            return
        records: list[Record] = []
        if self._meta is not None:
            records.append(self._meta | setup_record(chat.setup))
            self._known = SavedChat(chat.setup)
        found, reached = changes(self._known, chat)
        self._write(records + found)
        self._meta, self._known = None, reached

    def note_fork(self, session_id: str) -> None:
        """Write that another session goes on from here."""
        if self.exists:
            self._write([{"event": "fork", "id": session_id}])

    def load(self) -> SavedChat:
        """Open the file and read what is in it.

        Raises:
            UsageError: it can not be read, or another process has it open.
            OSError: it can not be opened.
        """
        self.open()
        try:
            self._known = read_session(self.path)
        except BaseException:
            self.close()
            raise
        return self._known

    def open(self) -> None:
        """Open the file for adding to it; a torn last line is taken off.

        Raises:
            UsageError: another process has it open.
            OSError: it can not be opened.
        """
        if self._descriptor is not None:
            return
        new = os.O_CREAT | os.O_EXCL if self._meta is not None else 0
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | new, 0o600)
        try:
            _lock(descriptor, self.id)
            _take_off_torn_line(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def close(self) -> None:
        """Let others write the session."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, records: list[Record]) -> None:
        if not records:
            return
        time = self._clock().isoformat(timespec="seconds")
        lines = [json.dumps(record | {"time": time}, ensure_ascii=False) for record in records]
        data = ("\n".join(lines) + "\n").encode("utf-8", "replace")
        try:
            self.open()
            assert self._descriptor is not None
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise OutputError(f"{quote(str(self.path))} can not be written: {error.strerror}") from None


class SessionStore:
    """The saved chats of one folder."""

    def __init__(self, folder: Path, clock: Clock = now) -> None:
        self.folder = folder
        self._clock = clock

    def create(self, name: str | None = None, forked_from: str | None = None) -> SessionFile:
        """A new session; its file comes with its first message.

        Raises:
            UsageError: the name is not one for a file, or is taken.
        """
        time = self._clock()
        name = name or f"{time:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        path = self._path(name)
        if path.exists():
            raise UsageError(f"there is a session {name} already", fix=f"resume it with --resume {name}")
        meta: Record = {"type": "meta", "version": VERSION, "id": name}
        if forked_from is not None:
            meta["forked_from"] = forked_from
        return SessionFile(path, meta, self._clock)

    def resume(self, session_id: str) -> tuple[SavedChat, SessionFile]:
        """A saved chat, and its file to go on with, which nobody else can write from now on.

        Raises:
            UsageError: there is no such session, it can not be read, or another process has it open.
        """
        file = SessionFile(self._path(session_id), None, self._clock)
        try:
            return file.load(), file
        except OSError as error:
            raise _unreadable(file.path, error) from None

    def read(self, session_id: str) -> SavedChat:
        """A saved chat.

        Raises:
            UsageError: it is not there, or can not be read; names the line.
        """
        return read_session(self._path(session_id))

    def exists(self, name: str) -> bool:
        """Whether there is a session of exactly this name."""
        return self._path(name).exists()

    def list(self) -> list[SessionInfo]:
        """All sessions, the one changed last first."""
        return [_describe(path) for path in self._newest_first()]

    def setups(self) -> Iterator[ChatSetup]:
        """What the sessions run with, the one changed last first; those that can not be read are passed over."""
        for path in self._newest_first():
            try:
                setup = read_session(path).setup
            except UsageError:
                continue
            yield setup

    def find(self, words: str) -> str:
        """The id that is meant: an id, the beginning of just one, or a place in `list()` counted from 1.

        Raises:
            UsageError: none or several are meant.
        """
        ids = [info.id for info in self.list()]
        if words in ids:
            return words
        if words.isascii() and words.isdigit() and len(words) <= 3 and 1 <= int(words) <= len(ids):
            return ids[int(words) - 1]
        found = [session_id for session_id in ids if session_id.startswith(words)] if words else []
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"{len(found)} sessions begin with {quote(words, 40)}", fix=f"such as {', '.join(found[:3])}"
            )
        raise UsageError(f"there is no session {quote(words, 40)}", fix="llmcli sessions list shows them")

    def latest(self) -> str:
        """The session changed last.

        Raises:
            UsageError: there is none.
        """
        for path in self._newest_first():
            info = _describe(path)
            if not info.problem:
                return info.id
        raise UsageError("there is no saved session", fix="start a chat without --continue")

    def remove(self, session_id: str) -> None:
        """Delete a session.

        Raises:
            UsageError: it can not be deleted, or a process has it open.
        """
        file = SessionFile(self._path(session_id), None, self._clock)
        try:
            file.open()
            file.path.unlink()
        except OSError as error:
            raise UsageError(f"session {session_id} can not be deleted: {error.strerror}") from None
        finally:
            file.close()

    def _newest_first(self) -> Sequence[Path]:
        try:
            paths = [path for path in self.folder.iterdir() if path.name.endswith(SUFFIX) and path.is_file()]
            return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)
        except OSError:
            return []

    def _path(self, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise UsageError(
                f"{quote(name, 40)!r} is no name for a session",
                fix="use up to 64 letters, digits and . _ -",
            )
        return self.folder / (name + SUFFIX)


def read_session(path: Path) -> SavedChat:
    """A saved chat from its file; a torn last line is passed over.

    Raises:
        UsageError: it is not there, or can not be read; names the line.
    """
    try:
        return replay(_records(path))
    except OSError as error:
        raise _unreadable(path, error) from None
    except RequestError as error:
        raise UsageError(
            f"{quote(str(path))} {error.what}", fix="llmcli sessions list shows the others"
        ) from None


def _records(path: Path) -> Iterator[Record]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = strict_json.loads(line)
            except ValueError as error:
                if not line.endswith(b"\n"):
                    return
                raise RequestError(f"line {number}: {quote(str(error))}") from None
            if not isinstance(record, dict):
                raise RequestError(f"line {number}: is no JSON object")
            yield record


def _describe(path: Path) -> SessionInfo:
    """One row of the list; a damaged file is listed with what is wrong."""
    status = path.stat()
    session_id = path.name.removesuffix(SUFFIX)
    about: dict[str, Any] = {
        "id": session_id,
        "path": str(path),
        "modified": status.st_mtime,
        "size": status.st_size,
    }
    try:
        chat = read_session(path)
    except UsageError as error:
        return SessionInfo(**about, model="", title="", turns=0, problem=error.what)
    return SessionInfo(**about, model=chat.setup.model, title=title(chat.turns), turns=len(chat.turns))


def title(turns: tuple[Turn, ...]) -> str:
    """The beginning of what was asked first."""
    first = turns[0].user if turns else ""
    return quote(" ".join(first.split()), 60)


def _take_off_torn_line(descriptor: int) -> None:
    """A line without its end was being written when the machine or the disk failed: nobody has read it yet."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    end, step = size, 1 << 16
    while end:
        start = max(0, end - step)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            os.ftruncate(descriptor, start + found + 1)
            return
        end = start
    os.ftruncate(descriptor, 0)


def _lock(descriptor: int, session_id: str) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: the last one to write wins
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(
            f"session {session_id} is open in another chat", fix="close it there, or leave --resume out"
        ) from None
    except OSError:  # a file system without locks
        return


def _unreadable(path: Path, error: OSError) -> UsageError:
    if isinstance(error, FileNotFoundError):
        name = path.name.removesuffix(SUFFIX)
        return UsageError(f"there is no session {quote(name, 40)}", fix="llmcli sessions list shows them")
    return UsageError(f"{quote(str(path))} can not be read: {error.strerror}")
