"""A small OpenAI-compatible server on the loopback: it plays scripted replies and remembers what it was asked."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GIVE_UP_S = 10.0


@dataclass(frozen=True)
class Reply:
    """One reply to a question.

    Attributes:
        pieces: written one by one, as they are; text is encoded.
        declared: more bytes than come, so that the connection breaks off.
        holds: waits, with the connection open, until the client has gone.
    """

    pieces: Sequence[str | bytes] = ()
    status: int = 200
    kind: str = "text/event-stream"
    declared: int | None = None
    holds: bool = False
    headers: dict[str, str] = field(default_factory=dict)


def event(value: object) -> str:
    return f"data: {json.dumps(value)}\n\n"


def chunk(text: str = "", finish: str | None = None, **delta: Any) -> str:
    content = {"content": text} if text else {}
    return event({"choices": [{"index": 0, "delta": content | delta, "finish_reason": finish}]})


def usage(prompt: int = 9, cached: int = 4, completion: int = 2) -> str:
    details = {"cached_tokens": cached}
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    return event({"choices": [], "usage": counts})


DONE = "data: [DONE]\n\n"


def answer(*texts: str, finish: str = "stop") -> Reply:
    return Reply([*(chunk(text) for text in texts), chunk(finish=finish), usage(), DONE])


@dataclass
class FakeServer:
    """What the server says, and what it was told."""

    replies: list[Reply] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "served", "max_model_len": 100}])
    key: str | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    @contextmanager
    def running(self) -> Iterator["FakeServer"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                """Be quiet."""

            def do_GET(self) -> None:
                if self.path != "/v1/models":
                    self.reply(Reply(['{"error": {"message": "no such path"}}'], 404, "application/json"))
                elif self.refused():
                    self.reply(Reply(['{"error": {"message": "Unauthorized"}}'], 401, "application/json"))
                else:
                    self.reply(Reply([json.dumps({"data": fake.models})], kind="application/json"))

            def do_POST(self) -> None:
                fake.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                fake.asked.set()
                self.reply(fake.replies.pop(0) if fake.replies else answer("Hello", " there."))

            def refused(self) -> bool:
                return fake.key is not None and self.headers.get("Authorization") != f"Bearer {fake.key}"

            def reply(self, reply: Reply) -> None:
                if reply.holds and not reply.pieces:
                    self.wait_for_the_end()
                    return
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.kind)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.declared is not None:
                    self.send_header("Content-Length", str(reply.declared))
                self.end_headers()
                for piece in reply.pieces:
                    self.wfile.write(piece.encode() if isinstance(piece, str) else piece)
                    self.wfile.flush()
                if reply.holds:
                    self.wait_for_the_end()

            def wait_for_the_end(self) -> None:
                self.connection.settimeout(GIVE_UP_S)
                if self.rfile.read(1) == b"":
                    fake.left.set()

        return Handler
