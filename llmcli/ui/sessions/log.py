"""Keeps a chat on disk as it goes, and tells once when that is no longer possible.

Knows the store of sessions and the notes; the chat calls `record` whenever something may have changed. Without a
store (`--no-log`) nothing is written.
"""

from llmcli.errors import OutputError, UsageError
from llmcli.ui.notes import Notes
from llmcli.ui.sessions.records import SavedChat
from llmcli.ui.sessions.store import SessionFile, SessionStore

NOT_KEPT = "chats are not saved"


class SessionLog:
    """The session that a chat is written to.

    Args:
        store: the saved chats; None to keep nothing.
    """

    def __init__(self, store: SessionStore | None, notes: Notes) -> None:
        self._store = store
        self._notes = notes
        self._file: SessionFile | None = None

    @property
    def store(self) -> SessionStore:
        """The saved chats.

        Raises:
            UsageError: nothing is saved.
        """
        if self._store is None:
            raise UsageError(NOT_KEPT, fix="start without --no-log")
        return self._store

    @property
    def session_id(self) -> str | None:
        """The session's id, once something of it has been written."""
        return self._file.id if self._file is not None and self._file.exists else None

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return self._file is None

    @property
    def place(self) -> str:
        """Where the chat is kept, for people."""
        if self._file is None:
            return NOT_KEPT
        return (
            f"{self._file.id} ({self._file.path})" if self._file.exists else "begins with the first message"
        )

    def begin(self, name: str | None = None) -> None:
        """Write to a new session from now on.

        Raises:
            UsageError: the name is taken, or is none for a file.
        """
        if self._store is not None:
            self._switch(self._store.create(name))

    def resume(self, session_id: str) -> SavedChat:
        """Go on with a saved session, and give what is in it.

        Raises:
            UsageError: there is no such session, it can not be read, or another chat has it open.
        """
        if self._file is not None and self._file.exists and self._file.id == session_id:
            return self.store.read(session_id)
        chat, file = self.store.resume(session_id)
        self._switch(file)
        return chat

    def fork(self, chat: SavedChat, name: str | None = None) -> str:
        """Write `chat` to a new session and go on there; returns its id.

        Raises:
            UsageError: nothing is saved, or the name is taken or none for a file.
        """
        here = self._file
        file = self.store.create(name, forked_from=self.session_id)
        if here is not None:
            try:
                here.note_fork(file.id)
            except (OutputError, UsageError) as error:
                self._notes.warn(error.what)
        self._switch(file)
        self.record(chat)
        return file.id

    def record(self, chat: SavedChat) -> None:
        """Write what has changed."""
        if self._file is None:
            return
        try:
            self._file.record(chat)
        except (OutputError, UsageError) as error:
            self._notes.warn(f"this chat is no longer saved: {error.what}")
            self._notes.dim("/export FILE.jsonl keeps it elsewhere")
            self.close()

    def close(self) -> None:
        """Let others write the session."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _switch(self, file: SessionFile) -> None:
        self.close()
        self._file = file
