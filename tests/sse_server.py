"""An OpenAI-compatible server on loopback that streams what a test tells it to, and remembers what it was asked."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DONE = "[DONE]"


def completion(*texts: str, usage: tuple[int, int] | None = None) -> list[object]:
    """The events of a completion: one for each text, then the counts of prompt and output tokens, then the end."""
    events: list[object] = [{"choices": [{"index": 0, "text": text}]} for text in texts]
    if usage is not None:
        counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
        events.append({"choices": [], "usage": counts})
    return [*events, DONE]


@dataclass
class Script:
    """What the server does.

    Attributes:
        events: of each stream, as JSON values or raw texts; the last one for all that come later.
        status, error: of the answer, where it is no stream.
        fail_from: number of the request, from 0, from which on `status` is in force.
        drop: close the connection after the events, without the end of the stream.
        models: the names that it lists.
        asked: path, headers and body of each POST.
    """

    events: Sequence[object] = field(default_factory=lambda: completion("a", "b", "c", usage=(5, 3)))
    status: int = 200
    error: object = field(default_factory=lambda: {"error": {"message": "the model is busy"}})
    fail_from: int = 0
    drop: bool = False
    models: Sequence[str] = ("first-model", "second-model")
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    most_at_once: int = 0
    base_url: str = ""
    at_once: int = 0
    gate: threading.Barrier | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serving(script: Script) -> Iterator[Script]:
    """Serve while inside; `script.base_url` is the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            found = {"data": [{"id": name} for name in script.models]}
            self._answer(200, found if self.path == "/v1/models" else {"error": "no such page"})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with script.lock:
                number = len(script.asked)
                script.asked.append((self.path, dict(self.headers), body))
                script.at_once += 1
                script.most_at_once = max(script.most_at_once, script.at_once)
            if script.gate is not None and number > 0:
                script.gate.wait(timeout=30)
            if script.status != 200 and number >= script.fail_from:
                self._answer(script.status, script.error)
            else:
                self._stream()
            with script.lock:
                script.at_once -= 1

        def _answer(self, status: int, value: object) -> None:
            data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._chunk(b": a comment\n\n")
            for event in script.events:
                text = event if isinstance(event, str) else json.dumps(event)
                self._chunk(f"data: {text}\n\n".encode())
            if script.drop:
                self.close_connection = True
                return
            self._chunk(b"")

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that hangs up is no news."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    script.base_url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
