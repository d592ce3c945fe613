"""A hub on loopback: enough of the Hugging Face API for huggingface_hub's client, with faults on request.

Speaks model info (licence, gate, sizes, hashes), search, the file tree, `resolve` with HEAD and ranges, renamed
repositories, and whoami. Large files may be sent from a second host, under another name of this machine, as the real
hub does; it notes what it was asked with. Knows nothing of llmcli; used by the tests of `hub/` and of its commands.

    python -m tests.fake_hub FOLDER    serves each folder OWNER/NAME below FOLDER as a repository, to try things by hand
"""

import hashlib
import json
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

FaultKind = Literal["status", "html", "drop", "stall", "corrupt", "ignore_range", "none"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request: a status, a web page, a body cut, silent or changed; or nothing."""

    kind: FaultKind
    status: int = 500
    after: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One request as it arrived; header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class FakeRepo:
    """Branches, and the files of each commit.

    Attributes:
        gated: the tokens with access; None is open to all.
        disabled: taken down: its page stays, its files are for nobody.
        tags: as the search filters by; "license:NAME" is the licence.
    """

    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: frozenset[str] | None = None
    disabled: bool = False
    tags: tuple[str, ...] = ("license:apache-2.0",)

    def commit(self, revision: str) -> str | None:
        """The commit that a branch, or a commit itself, stands for."""
        return revision if revision in self.commits else self.branches.get(revision)

    def files(self, revision: str) -> dict[str, bytes]:
        """Content of a revision that exists."""
        return self.commits[self.commit(revision) or ""]


class FakeHub:
    """The state of the server: repositories, faults to come, requests seen."""

    def __init__(self) -> None:
        self.repos: dict[str, FakeRepo] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.requests: list[Request] = []
        self.cdn_requests: list[Request] = []
        self.closing = threading.Event()
        self.renamed: dict[str, str] = {}
        self.accounts: dict[str, str] | None = None  # token -> name; None takes every token for ada's
        self._lock = threading.Lock()
        self.url = self.cdn_url = ""
        self.use_cdn = False

    def add(self, repo: str, files: Mapping[str, bytes], *, revision: str = "main") -> str:
        """Point a branch to these files; returns their commit."""
        kept = self.repos.setdefault(repo, FakeRepo())
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        kept.branches[revision] = commit
        kept.commits[commit] = dict(files)
        return commit

    def fail(self, path_end: str, *faults: Fault) -> None:
        """Let the next requests whose path ends so go wrong, one fault each."""
        self.faults[path_end] += faults

    def next_fault(self, path: str) -> Fault | None:
        """Take the fault that is due for a path."""
        with self._lock:
            for end, faults in self.faults.items():
                if path.endswith(end) and faults:
                    return faults.pop(0)
        return None

    def ranges(self, path_end: str) -> list[tuple[int, int | None]]:
        """First and last byte asked for, of each request for a file; (0, None) is all of it."""
        asked = [request for request in self.requests if request.path.endswith(path_end)]
        texts = [
            request.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-") for request in asked
        ]
        return [(int(first), int(last) if last else None) for first, last in texts]

    def paths(self, method: str = "GET") -> list[str]:
        """Paths of the requests so far."""
        return [request.path for request in self.requests if request.method == method]


def is_lfs(name: str) -> bool:
    """Weights are large files with a sha256; the others have git's object id."""
    return name.endswith((".safetensors", ".bin", ".gguf"))


def digest_of(name: str, content: bytes) -> str:
    """The entity tag that the hub gives to a file."""
    if is_lfs(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """A hub and its second host on free ports of 127.0.0.1."""
    hub = FakeHub()
    servers = [_Server(("127.0.0.1", 0), _handler(hub, cdn)) for cdn in (False, True)]
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in servers]
    hub.url = f"http://127.0.0.1:{servers[0].server_address[1]}"
    hub.cdn_url = f"http://localhost:{servers[1].server_address[1]}"
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def make_default(hub: FakeHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub, which read its environment when it was imported, take `hub` for the real one."""
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is a part of the game."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _handler(hub: FakeHub, cdn: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        def handle_one_request(self) -> None:
            self.hub, self.cdn = hub, cdn
            super().handle_one_request()

    return Handler


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    cdn: bool

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        seen = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        (self.hub.cdn_requests if self.cdn else self.hub.requests).append(seen)
        path = unquote(urlsplit(self.path).path)
        fault = self.hub.next_fault(path) if self.command == "GET" else None
        if fault and fault.kind == "status":
            self._send(fault.status, b"{}", fault.headers)
        elif fault and fault.kind == "html":
            self._send(200, b"<html>log in to the network</html>", {"Content-Type": "text/html"})
        elif fault and fault.kind == "stall" and not fault.after:
            self.hub.closing.wait(30)
        elif self._has_bad_token():
            message = {"X-Error-Message": "Invalid credentials in Authorization header"}
            self._send(401, b'{"error": "Invalid credentials in Authorization header"}', message)
        elif path == "/api/whoami-v2":
            self._send(
                200, json.dumps({"name": (self.hub.accounts or {}).get(self._token(), "ada")}).encode()
            )
        elif path == "/api/models":
            self._search(parse_qs(urlsplit(self.path).query))
        elif new_path := self._moved_to(path):
            self._send(307, b"", {"Location": new_path})
        elif path.startswith("/api/models/"):
            self._info(path.removeprefix("/api/models/").split("/"))
        else:
            self._file(path, fault)

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _has_bad_token(self) -> bool:
        accounts = self.hub.accounts
        return accounts is not None and self._token() != "" and self._token() not in accounts

    def _moved_to(self, path: str) -> str:
        """Where a renamed repository is now; the real hub sends a path without a host, too."""
        for old, new in self.hub.renamed.items():
            for start in ("/api/models/", "/"):
                if f"{path}/".startswith(f"{start}{old}/"):
                    return f"{start}{new}" + path.removeprefix(f"{start}{old}")
        return ""

    def _search(self, query: Mapping[str, list[str]]) -> None:
        """Repositories of the author whose names hold the text and that have all the tags."""
        text, wanted = query.get("search", [""])[0].lower(), query.get("filter", [])
        owner = query.get("author", [""])[0]
        found = [
            {"id": name, "tags": list(repo.tags)}
            for name, repo in self.hub.repos.items()
            if text in name.lower()
            and name.startswith(owner and f"{owner}/")
            and set(wanted) <= set(repo.tags)
        ]
        self._send(200, json.dumps(found[: int(query.get("limit", ["10"])[0])]).encode())

    def _info(self, parts: list[str]) -> None:
        repo = self._repo("/".join(parts[:2]))
        if repo is None:
            return
        revision = "/".join(parts[3:]) or "main"
        commit = repo.commit(revision)
        if commit is None:
            self._send(404, b'{"error": "Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
            return
        files = repo.files(revision)
        if parts[2:3] == ["tree"]:
            body: object = [_tree_entry(name, content) for name, content in files.items()]
        else:
            siblings = [_sibling(name, content) for name, content in files.items()]
            gate = "manual" if repo.gated is not None else False
            body = {
                "id": "/".join(parts[:2]),
                "sha": commit,
                "siblings": siblings,
                "gated": gate,
                "tags": repo.tags,
            }
        self._send(200, json.dumps(body).encode())

    def _file(self, path: str, fault: Fault | None) -> None:
        name, _, rest = path[1:].partition("/resolve/")
        revision, _, file = rest.partition("/")
        repo = self._repo(name)
        if repo is None:
            return
        commit = repo.commit(revision)
        if commit is None or file not in repo.files(revision):
            code = "RevisionNotFound" if commit is None else "EntryNotFound"
            self._send(404, b"{}", {"X-Error-Code": code})
            return
        if repo.disabled:
            self._send(403, b"{}", {"X-Error-Message": "Access to this resource is disabled."})
            return
        if repo.gated is not None and not self.cdn and (refused := self._refusal(repo.gated)):
            self._send(refused, b"{}", {"X-Error-Code": "GatedRepo"})
            return
        content = repo.files(revision)[file]
        digest = digest_of(file, content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"'}
        if is_lfs(file):
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            if self.hub.use_cdn and not self.cdn:
                self._send(302, b"", headers | {"Location": f"{self.hub.cdn_url}{path}"})
                return
        self._content(content, headers, fault)

    def _refusal(self, allowed: frozenset[str]) -> int | None:
        token = self._token()
        return None if token in allowed else 403 if token else 401

    def _content(self, content: bytes, headers: Mapping[str, str], fault: Fault | None) -> None:
        start, end, status, extra = 0, len(content), 200, dict(headers)
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes=") and not (fault and fault.kind == "ignore_range"):
            first, _, last = wanted[6:].partition("-")
            start, end, status = int(first), min(end, int(last) + 1) if last else end, 206
            extra["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            if start >= len(content):
                self._send(416, b"", headers)
                return
        body = content[start:end]
        if fault and fault.kind == "corrupt":
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(status)
        for name, value in extra.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = fault is not None and fault.kind in ("drop", "stall")
        self.wfile.write(body[: fault.after] if fault and cut else body)
        if fault and fault.kind == "stall":
            self.wfile.flush()
            self.hub.closing.wait(30)

    def _repo(self, name: str) -> FakeRepo | None:
        if name not in self.hub.repos:
            self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
            return None
        return self.hub.repos[name]

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | dict(headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _sibling(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "rfilename": name,
        "size": len(content),
        "blobId": hashlib.sha1(content).hexdigest() if is_lfs(name) else digest_of(name, content),
    }
    if is_lfs(name):
        entry["lfs"] = {"sha256": digest_of(name, content), "size": len(content), "pointerSize": 130}
    return entry


def _tree_entry(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file",
        "path": name,
        "size": len(content),
        "oid": digest_of(name, content),
    }
    if is_lfs(name):
        entry["lfs"] = {"oid": digest_of(name, content), "size": len(content), "pointerSize": 130}
    return entry


def _serve_folder(folder: Path) -> None:
    """Serve until Ctrl-C."""
    with running_hub() as hub:
        for config in sorted(folder.glob("*/*/config.json")):
            files = {path.name: path.read_bytes() for path in config.parent.iterdir() if path.is_file()}
            hub.add("/".join(config.parent.parts[-2:]), files)
        print(f"export HF_ENDPOINT={hub.url}  # {', '.join(hub.repos)}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    _serve_folder(Path(sys.argv[1]))
