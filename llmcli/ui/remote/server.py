"""Talks HTTP to an OpenAI-compatible server: one request at a time, each failure told in words.

Owns addresses, headers, limits and the mapping of failures. Knows no conversation; `remote/backend.py` calls
it. Nothing is followed (redirects) and nothing is read from the environment (proxies): a key goes to the
address that the user typed and nowhere else.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from llmcli import __version__, strict_json
from llmcli.errors import (
    ContextFullError,
    LLMCliError,
    ModelNotFoundError,
    ModelUnavailableError,
    RequestError,
    ServerError,
    UsageError,
    quote,
)

CONNECT_S = 10.0
SILENCE_S = 300.0
MAX_BODY = 8 << 20
_CONTEXT_WORDS = ("context_length", "context length", "context size", "context window", "maximum context")


class Exchange:
    """One request and its response, through a connection of their own."""

    def __init__(self, server: "Server", connection: http.client.HTTPConnection) -> None:
        self._server = server
        self._connection = connection
        assert connection.sock is not None
        self._socket: socket.socket = connection.sock  # the connection forgets it once the response has begun
        self._response: http.client.HTTPResponse | None = None

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> http.client.HTTPResponse:
        """Send the request and wait for the head of the response.

        Raises:
            LLMCliError: the connection broke, or the status is not 200.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = self._server.headers | ({} if data is None else {"Content-Type": "application/json"})
        try:
            self._socket.settimeout(SILENCE_S)
            self._connection.request(
                method, self._server.path + path, data, headers | {"Connection": "close"}
            )
            self._response = self._connection.getresponse()
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._server.broken(error) from None
        if self._response.status != http.HTTPStatus.OK:
            raise self._server.refusal(self._response)
        return self._response

    def cut(self) -> None:
        """End it from any thread: whoever waits or reads gets the end of the stream."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has ended by itself
            return

    def close(self) -> None:
        """Let go of the connection."""
        if self._response is not None:
            self._response.close()
        self._connection.close()
        self._socket.close()


class Server:
    """One server.

    Args:
        url: such as http://127.0.0.1:8000/v1.
        key: sent as a bearer token.

    Raises:
        UsageError: the address or the key has no such form.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        try:
            parts = urlsplit(self.url)
            self._host, self._port, self._secure = parts.hostname or "", parts.port, parts.scheme == "https"
        except ValueError as error:
            raise UsageError(f"{quote(url)} is no address: {quote(str(error))}") from None
        if parts.scheme not in ("http", "https") or not self._host or parts.query or parts.username:
            raise UsageError(
                f"{quote(url)} is no address of a server", fix="use the form http://127.0.0.1:8000/v1"
            )
        if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
            raise UsageError("the API key must be visible ASCII characters without spaces")
        self.path = parts.path
        self.headers = {"User-Agent": f"llmcli/{__version__}", "Accept-Encoding": "identity"}
        if key is not None:
            self.headers["Authorization"] = f"Bearer {key}"

    def models(self) -> list[dict[str, Any]]:
        """What GET /models lists; each has an `id`.

        Raises:
            LLMCliError: the server can not be reached, refuses, or answers something else.
        """
        exchange = self.connect()
        try:
            value = self._json(exchange.ask("GET", "/models"))
        finally:
            exchange.close()
        entries = value.get("data") if isinstance(value, dict) else None
        models = entries if isinstance(entries, list) else []
        named = [model for model in models if isinstance(model, dict) and isinstance(model.get("id"), str)]
        if not named:
            raise ServerError(
                f"{quote(self.url)} lists no models", fix="an OpenAI-compatible address ends in /v1, mostly"
            )
        return named

    def broken(self, error: Exception) -> ServerError:
        """The error for a connection that failed."""
        if isinstance(error, TimeoutError):
            return ServerError(f"{quote(self.url)} sent nothing for {SILENCE_S:.0f} s")
        reason = quote(str(error)) or type(error).__name__
        return ServerError(f"the connection to {quote(self.url)} broke: {reason}")

    def connect(self) -> Exchange:
        """Open a connection.

        Raises:
            ServerError: the server can not be reached.
        """
        connection: http.client.HTTPConnection
        if self._secure:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=CONNECT_S, context=context
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_S)
        try:
            connection.connect()
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            connection.close()
            timed_out = f"no answer within {CONNECT_S:.0f} s"
            reason = timed_out if isinstance(error, TimeoutError) else quote(str(error))
            raise ServerError(
                f"no server at {quote(self.url)}", why=reason, fix="start it, or check --url"
            ) from None
        return Exchange(self, connection)

    def _json(self, response: http.client.HTTPResponse) -> Any:
        try:
            data = response.read(MAX_BODY + 1)
        except (OSError, http.client.HTTPException) as error:
            raise self.broken(error) from None
        try:
            if len(data) > MAX_BODY:
                raise ValueError(f"it is longer than {MAX_BODY >> 20} MiB")
            return strict_json.loads(data)
        except ValueError as error:
            raise ServerError(
                f"{quote(self.url)} answers something that is not JSON: {quote(str(error))}",
                fix="an OpenAI-compatible address ends in /v1, mostly",
            ) from None

    def refusal(self, response: http.client.HTTPResponse) -> LLMCliError:
        """The error that a status other than 200 means."""
        status, said = response.status, self._complaint(response)
        if status in (401, 403):
            return ModelUnavailableError(
                f"{quote(self.url)} wants {'a' if 'Authorization' not in self.headers else 'another'} key",
                why=said,
                fix="set LLMCLI_API_KEY",
            )
        if status == 404:
            return ModelNotFoundError(
                f"{quote(self.url)} does not know this model or path",
                why=said,
                fix="/model lists what is served; the address ends in /v1, mostly",
            )
        if status in (400, 413, 422) and any(word in said.lower() for word in _CONTEXT_WORDS):
            return ContextFullError(
                "the conversation does not fit the server's context",
                why=said,
                fix="/undo or /clear makes room",
            )
        if status in (400, 413, 422):
            return RequestError(f"the server refuses the request ({status})", why=said)
        if 300 <= status < 400:
            to = quote(response.getheader("Location") or "another address")
            return ServerError(
                f"{quote(self.url)} points to {to}", fix="give --url the address that is meant"
            )
        return ServerError(f"{quote(self.url)} fails with status {status}", why=said)

    @staticmethod
    def _complaint(response: http.client.HTTPResponse) -> str:
        """What the server says is wrong, in the forms that servers have for it."""
        try:
            data = response.read(64 << 10)
            value = strict_json.loads(data)
        except (OSError, http.client.HTTPException):
            return ""
        except ValueError:
            return quote(data.decode("utf-8", "replace").strip())
        return complaint(value)


def complaint(value: object) -> str:
    """The message in an error object: {"error": {"message": ..., "code": ...}}, {"error": "..."} and others."""
    if isinstance(value, dict):
        inner = value.get("error", value)
        if isinstance(inner, dict):
            words = [inner.get("message") or inner.get("detail"), inner.get("code"), inner.get("type")]
            texts = [quote(word, 600) for word in words if isinstance(word, str) and word]
            if texts:
                return f"{texts[0]} ({', '.join(texts[1:])})" if texts[1:] else texts[0]
        if isinstance(inner, str):
            return quote(inner, 600)
    return quote(value)
