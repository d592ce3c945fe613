"""Loads a model in a thread, so that the prompt is there while the weights are still read.

Knows neither engine nor terminal: it runs the function that it is given. Started by `cli/chat.py`; the
session waits for it when the first message is sent.
"""

import threading
from collections.abc import Callable

from llmcli.ui.backend import Backend

OnPhase = Callable[[str], None]
OnDone = Callable[[BaseException | None], None]


class Loader:
    """Runs `build` once in a daemon thread and keeps what it returned or raised.

    Args:
        build: makes the backend; gets a function to call with one line per phase of loading. The lines are
        kept in
            `phases`.
    """

    def __init__(self, build: Callable[[OnPhase], Backend]) -> None:
        self.phases: list[str] = []
        self._build = build
        self._on_done: OnDone | None = None
        self._backend: Backend | None = None
        self._error: BaseException | None = None
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="llmcli-load", daemon=True)

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether the model is there."""
        return self._backend is not None

    @property
    def failed(self) -> bool:
        """Whether the build raised."""
        return self._error is not None

    def on_done(self, callback: OnDone) -> None:
        """Have `callback` called with the error or None when loading ends, from the loader's thread; at once
        when it has ended."""
        with self._lock:
            self._on_done = callback
            done = self._done.is_set()
        if done:
            callback(self._error)

    def wait(self) -> Backend:
        """The backend, once it is there.

        Raises:
            BaseException: whatever the build raised.
        """
        self._done.wait()
        if self._error is not None:
            raise self._error
        assert self._backend is not None
        return self._backend

    def close(self) -> None:
        """Close the backend; a load that is under way is left to end with the process."""
        if self._backend is not None:
            self._backend.close()

    def _run(self) -> None:
        try:
            self._backend = self._build(self.phases.append)
        except BaseException as error:
            self._error = error
        with self._lock:
            self._done.set()
            callback = self._on_done
        if callback is not None:
            callback(self._error)
