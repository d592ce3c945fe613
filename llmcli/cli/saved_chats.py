"""Where this user's saved chats are, which of them `llmcli chat` is to go on with, and which model follows from them.

Called by `chat.py` and its parts, and by `sessions.py`; what is in a session is `ui/sessions/store.py`'s.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcli.errors import LLMCliError, UsageError

if TYPE_CHECKING:
    from llmcli.ui.sessions.store import SessionStore

MAX_LOOKED_AT = 20  # sessions, for the model that was used last


def state_folder() -> Path:
    """Where what outlives a chat is kept."""
    import platformdirs

    return Path(platformdirs.user_state_dir("llmcli", appauthor=False))


def session_store() -> "SessionStore":
    """The saved chats of this user."""
    from llmcli.ui.sessions.store import SessionStore

    return SessionStore(state_folder() / "sessions")


def named_session(
    store: "SessionStore", *, latest: bool, resume: str | None, session: str | None
) -> str | None:
    """The id of the session that --continue, --resume ID or --session NAME means; None for a new one.

    Raises:
        UsageError: there is no such session.
    """
    if latest:
        return store.latest()
    if resume:
        return store.find(resume)
    return session if session is not None and store.exists(session) else None


def last_model() -> str | None:
    """The model of this machine that was chatted with last, if it is still here."""
    from llmcli.hub.models import find_local

    setups = islice(session_store().setups(), MAX_LOOKED_AT)
    for name in dict.fromkeys(setup.model for setup in setups if setup.url is None):
        try:
            if find_local(name) is not None:
                return name
        except LLMCliError:  # a folder that is gone, or is no model any more
            continue
    return None


def unnamed_model(typed: Mapping[str, Any], default: str | None) -> str | None:
    """The model of a chat for which none is typed: that of the session which is gone on with, the default, the last.

    Args:
        typed: values of options as they stand on the command line.
    """
    store = session_store()
    try:
        session_id = named_session(
            store,
            latest=bool(typed.get("latest")),
            resume=typed.get("resume"),
            session=typed.get("session"),
        )
        saved = "" if session_id is None else store.read(session_id).setup.model
    except UsageError:  # told when the session is opened
        saved = ""
    return saved or default or (None if typed.get("url") else last_model())
