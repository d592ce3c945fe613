"""One worker thread that runs the engine, and handles to follow single requests from other threads.

Commands reach the worker through a queue and are carried out between steps. Whatever dies, every stream ends with
exactly one terminal event for each of its choices.
"""

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from llmcli.engine.engine import Engine
from llmcli.errors import EngineError, LLMCliError, quote
from llmcli.outputs import TokenEvent
from llmcli.sampling import SamplingParams

CLOSED = "the engine is closed"
T = TypeVar("T")


class Stream:
    """The events of one request: iterate over it from one thread."""

    def __init__(self, request_id: str, num_choices: int, abort: Callable[[], None]) -> None:
        self.request_id = request_id
        self.abort = abort
        """Ask the engine to stop; the terminal events still come."""
        self._unfinished = set(range(num_choices))
        self._events: queue.SimpleQueue[TokenEvent] = queue.SimpleQueue()
        self._num_unread = num_choices

    def __iter__(self) -> Iterator[TokenEvent]:
        while self._num_unread:
            event = self._events.get()
            self._num_unread -= event.finish_reason is not None
            yield event

    def put(self, event: TokenEvent) -> bool:
        """Called by the worker; returns whether that was the last event."""
        if event.finish_reason is not None:
            self._unfinished.discard(event.index)
        self._events.put(event)
        return not self._unfinished

    def fail(self, error: str) -> None:
        """Called by the worker: end what is unfinished."""
        for index in sorted(self._unfinished):
            self.put(TokenEvent(self.request_id, index, "", (), finish_reason="error", error=error))


class EngineThread:
    """Runs an engine while it has work, and sleeps while it has none."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._ids = itertools.count()
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._streams: dict[str, Stream] = {}
        self._jobs: set[Future[Any]] = set()
        # Taken to queue a request and to refuse all later ones: none can slip in behind the last command.
        self._lock = threading.Lock()
        self._refusal: str | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="llmcli-engine", daemon=True)
        self._thread.start()

    def submit(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> Stream:
        """Start a request.

        Raises:
            RequestError: it can not be served as asked.
            EngineError: the engine has died or is closed.
        """
        self.engine.check(prompt_token_ids, params)
        request_id = f"stream-{next(self._ids)}"
        stream = Stream(
            request_id, params.n, lambda: self._commands.put(lambda: self.engine.abort(request_id))
        )
        with self._lock:
            if self._refusal is not None:
                raise EngineError(self._refusal)
            self._streams[request_id] = stream
            self._commands.put(lambda: self._add(stream, prompt_token_ids, params))
        return stream

    def run(self, job: Callable[[Engine], T]) -> T:
        """Have the worker thread do something else with the engine between two steps, and wait for it.

        Raises:
            EngineError: the engine has died or is closed.
            Exception: what `job` raises; the engine goes on.
        """
        done: Future[T] = Future()

        def work() -> None:
            try:
                done.set_result(job(self.engine))
            except Exception as error:
                done.set_exception(error)

        with self._lock:
            if self._refusal is not None:
                raise EngineError(self._refusal)
            self._jobs.add(done)
            self._commands.put(work)
        try:
            return done.result()
        finally:
            self._jobs.discard(done)

    def close(self) -> None:
        """Abort everything, deliver the terminal events and end the thread."""
        self._refuse(CLOSED)
        self._commands.put(self._stop)
        self._thread.join()

    def _refuse(self, reason: str) -> None:
        with self._lock:
            self._refusal = self._refusal or reason

    def _stop(self) -> None:
        self._stopped = True
        self.engine.close()

    def _add(self, stream: Stream, prompt_token_ids: Sequence[int], params: SamplingParams) -> None:
        try:
            self.engine.add(prompt_token_ids, params, request_id=stream.request_id)
        except LLMCliError as error:
            self._streams.pop(stream.request_id).fail(error.what)

    def _run(self) -> None:
        reason = CLOSED
        try:
            while not (self._stopped and not self.engine.has_work):
                self._obey()
                for event in self.engine.step() if self.engine.has_work else ():
                    if self._streams[event.request_id].put(event):
                        del self._streams[event.request_id]
        except BaseException as error:
            reason = f"the engine stopped: {type(error).__name__}: {quote(str(error))}"
        finally:
            self._end_all(reason)

    def _obey(self) -> None:
        """Carry out all commands; wait for one when there is nothing else to do."""
        if not self.engine.has_work:
            self._commands.get()()
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            command()

    def _end_all(self, reason: str) -> None:
        self._refuse(reason)
        for stream in list(self._streams.values()):
            stream.fail(reason)
        self._streams.clear()
        for job in list(self._jobs):
            if not job.done():
                job.set_exception(EngineError(reason))
