"""An answer that a server streams, as the events that an engine in this process would give.

Owns the reading of chat.completion.chunk objects. Made by `remote/backend.py`, read by `answer.py`.
"""

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmcli.errors import ServerError, quote
from llmcli.outputs import FinishReason, Logprob, RequestStats, TokenEvent, TokenLogprobs
from llmcli.ui.remote.server import Exchange, Server, complaint
from llmcli.ui.remote.server_sent_events import events

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


class RemoteStream:
    """One answer. Nothing is sent before it is read.

    Reasoning that the server has put apart comes as text between <think> and </think>, as from a model in
    this process. `abort` may be called from any thread and at any time.
    """

    def __init__(
        self, server: Server, body: Mapping[str, Any], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = server
        self._body = body
        self._clock = clock
        self._lock = threading.Lock()
        self._exchange: Exchange | None = None
        self._aborted = False
        self._thinking = False
        self._finish: FinishReason | None = None
        self._usage: Mapping[str, Any] | None = None
        self._first_at: float | None = None

    def abort(self) -> None:
        """End the answer; the terminal event still comes."""
        with self._lock:
            self._aborted = True
            if self._exchange is not None:
                self._exchange.cut()

    def __iter__(self) -> Iterator[TokenEvent]:
        """The events of the answer.

        Raises:
            LLMCliError: the server can not be reached or refuses; nothing has come then.
        """
        started = self._clock()
        exchange = self._server.connect()
        with self._lock:
            self._exchange = exchange
            if self._aborted:
                exchange.cut()
        try:
            response = exchange.ask("POST", "/chat/completions", self._body)
            yield from self._read(response, started)
        except ServerError:
            if not self._aborted:
                raise
            yield _last("abort")
        finally:
            with self._lock:
                self._exchange = None
            exchange.close()

    def _read(self, response: http.client.HTTPResponse, started: float) -> Iterator[TokenEvent]:
        error = ""
        kind = response.headers.get_content_type()
        try:
            if kind != "text/event-stream":
                raise ValueError(f"it is {quote(kind, 60)}, not a stream of events")
            for chunk in events(response.readline):
                if "error" in chunk:
                    raise ValueError(complaint(chunk))
                event = self._event(chunk)
                if event is not None:
                    yield event
        except (ValueError, TypeError, AttributeError, LookupError) as problem:
            error = f"the server's answer is broken: {quote(str(problem), 600)}"
        except (OSError, http.client.HTTPException) as problem:
            error = self._server.broken(problem).what
        if self._aborted:
            yield _last("abort")
        elif error or self._finish is None:
            yield _last("error", error or "the connection ended before the answer did")
        else:
            yield _last(self._finish, stats=self._stats(started))

    def _event(self, chunk: Mapping[str, Any]) -> TokenEvent | None:
        """What one chunk adds, if anything.

        Raises:
            ValueError, TypeError, AttributeError, LookupError: it is no chat.completion.chunk.
        """
        if chunk.get("usage") is not None:
            self._usage = chunk["usage"]
        choices = chunk.get("choices") or []
        if not choices:
            return None
        choice = choices[0]
        if choice.get("finish_reason") is not None:
            self._finish = "length" if choice["finish_reason"] == "length" else "stop"
        delta = choice.get("delta") or {}
        text = self._text(delta)
        logprobs = _logprobs(choice.get("logprobs"))
        if not text and not logprobs:
            return None
        self._first_at = self._first_at or self._clock()
        return TokenEvent("remote", 0, text, (), logprobs or None)

    def _text(self, delta: Mapping[str, Any]) -> str:
        thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
        said = delta.get("content") or ""
        if not isinstance(thought, str) or not isinstance(said, str):
            raise ValueError("the text of a chunk is no string")
        marks = ""
        if thought and not self._thinking:
            self._thinking, marks = True, THINK_OPEN
        text = marks + thought
        if said and self._thinking:
            self._thinking = False
            text += THINK_CLOSE
        return text + said

    def _stats(self, started: float) -> RequestStats | None:
        usage, now = self._usage, self._clock()
        if not isinstance(usage, Mapping):
            return None
        details = usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
        prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(prompt) is not int or type(output) is not int or type(cached or 0) is not int:
            return None
        ttft = (self._first_at or now) - started
        return RequestStats(prompt, cached or 0, output, 0.0, ttft, now - started)


def _last(reason: FinishReason, error: str | None = None, stats: RequestStats | None = None) -> TokenEvent:
    return TokenEvent("remote", 0, "", (), None, reason, None, error, stats)


def _logprobs(value: object) -> tuple[TokenLogprobs, ...]:
    """OpenAI's `logprobs.content`; token ids are not told, and stand as 0."""
    content = value.get("content") if isinstance(value, Mapping) else None
    found = []
    for entry in content or ():
        top = [
            Logprob(0, float(other["logprob"]), rank, str(other["token"]))
            for rank, other in enumerate(entry.get("top_logprobs") or (), 1)
        ]
        rank = next((other.rank for other in top if other.text == entry["token"]), len(top) + 1)
        sampled = Logprob(0, float(entry["logprob"]), rank, str(entry["token"]))
        found.append(TokenLogprobs(sampled, tuple(top)))
    return tuple(found)
