"""One streamed request to an OpenAI-compatible server, and when its tokens came.

Takes the times that `bench/serve_metrics.py` defines. Speaks the completions and the chat form, over HTTP by httpx2
(huggingface_hub 2 brings it along; with huggingface_hub 1, which brings the older httpx, it is a dependency of our
own, so there is one client to write against). Knows nothing of when requests are sent: `bench/serve.py` decides.
"""

import ipaddress
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from llmcli.errors import ServerError, UsageError, quote
from llmcli.jobs.bench.engine import Clock
from llmcli.jobs.bench.serve_metrics import Outcome
from llmcli.jobs.bench.workload import Work

if TYPE_CHECKING:
    import httpx2

CHAT_SUFFIX = "chat/completions"
CONNECT_S, SILENCE_S = 10.0, 600.0  # a server that is silent for longer is taken for dead
MAX_ERROR = 300
END = "[DONE]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where requests go, and what all of them carry.

    Attributes:
        base_url: such as http://127.0.0.1:8000, with or without /v1.
        endpoint: path of the requests; ends in chat/completions, or in completions.
        model: name that the server knows; None asks it for its first one.
        api_key: sent as a bearer token.
        ignore_eos: ask the server to go on after the end of sequence; not every server knows the field.
        sampling: further fields of the body, such as temperature.
    """

    base_url: str
    endpoint: str = "/v1/completions"
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    ignore_eos: bool = True
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # such as a port of 99999
            valid = False
        if not valid:
            raise UsageError(f"--base-url must be like http://127.0.0.1:8000, got {quote(self.base_url)}")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise UsageError("--api-key has characters that no key has", fix="copy it again")
        if not self.endpoint.endswith("completions"):
            raise UsageError(
                f"--endpoint must end in completions or chat/completions, got {quote(self.endpoint)}",
                fix="use --endpoint /v1/completions or --endpoint /v1/chat/completions",
            )

    @property
    def is_chat(self) -> bool:
        return self.endpoint.endswith(CHAT_SUFFIX)

    def url(self, path: str) -> str:
        """`path` on the server; a /v1 at the end of the base is the one that the path begins with."""
        base = self.base_url.rstrip("/")
        if base.endswith("/v1") and path.startswith("/v1/"):
            base = base[: -len("/v1")]
        return f"{base}/{path.lstrip('/')}"

    @property
    def address(self) -> str:
        """The base for people and for files: without a name and password before the host."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    @property
    def is_this_machine(self) -> bool:
        host = urlsplit(self.base_url).hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def open_client(target: Target) -> "httpx2.AsyncClient":
    """A client without a limit of its own on connections: how many are open is the benchmark's business.

    Raises:
        UsageError: the host can not be one.
    """
    import httpx2

    try:
        httpx2.URL(target.base_url)
    except httpx2.InvalidURL as error:
        raise UsageError(f"--base-url {quote(target.address)}: {quote(str(error))}") from None
    return httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {target.api_key}"} if target.api_key else {},
        timeout=httpx2.Timeout(SILENCE_S, connect=CONNECT_S),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
        trust_env=not target.is_this_machine,  # a proxy would not find this machine's own address
    )


async def first_model(client: "httpx2.AsyncClient", target: Target) -> str:
    """The name of the first model that the server lists.

    Raises:
        ServerError: it can not be reached, or lists none.
    """
    import httpx2

    try:
        response = await client.get(target.url("/v1/models"))
    except httpx2.HTTPError as error:
        raise unreachable(target, error) from None
    try:
        if response.status_code == 200:
            return str(response.json()["data"][0]["id"])
        why = f"/v1/models answers {response.status_code} {_message(response.content)}"
    except (ValueError, KeyError, IndexError, TypeError):
        why = "/v1/models lists none"
    raise ServerError("the server names no model", why=why, fix="give its name: --model NAME")


def unreachable(target: Target, error: Exception) -> ServerError:
    """What to say when the server does not answer at all."""
    return ServerError(
        f"no server answers at {quote(target.address)}",
        why=quote(str(error) or type(error).__name__),
        fix="start it, or give its address: --base-url http://HOST:PORT",
    )


def body_of(target: Target, work: Work) -> dict[str, Any]:
    """The JSON body of a request.

    Raises:
        UsageError: the endpoint does not take this kind of prompt.
    """
    body: dict[str, Any] = {"model": target.model, "stream": True, "stream_options": {"include_usage": True}}
    if target.is_chat:
        if work.kind == "token_ids":
            raise UsageError("a chat endpoint takes no token ids", fix="use --endpoint /v1/completions")
        body["messages"] = [{"role": "user", "content": work.prompt}] if work.kind == "text" else work.prompt
    else:
        if work.kind == "messages":
            raise UsageError(
                "the dataset has messages, which need a chat endpoint",
                fix="use --endpoint /v1/chat/completions",
            )
        body["prompt"] = work.prompt
    body["max_tokens"] = work.num_output
    if target.ignore_eos:
        body["ignore_eos"] = True
    return {**body, **target.sampling}


@dataclass(slots=True)
class _Reading:
    """What has come of one answer so far."""

    started_at: float
    ttft_s: float | None = None
    last_at: float = 0.0
    gaps: list[float] = field(default_factory=list)
    usage: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    def take(self, data: str, now: float) -> None:
        """One event of the stream, that came at `now`."""
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            self.error = f"an event is no JSON object: {quote(data, MAX_ERROR)}"
            return
        if event.get("error"):
            self.error = _error_text(event["error"])
        if isinstance(event.get("usage"), dict):
            self.usage = event["usage"]
        if not event.get("choices"):
            return
        if self.ttft_s is None:
            self.ttft_s = now - self.started_at
        else:
            self.gaps.append(now - self.last_at)
        self.last_at = now

    def outcome(self, work: Work) -> Outcome:
        if self.error is None and self.ttft_s is None:
            self.error = "the stream ended without a token"
        if self.error is not None:
            return Outcome(started_at=self.started_at, error=self.error)
        counted = _count(self.usage, "completion_tokens")
        prompt = _count(self.usage, "prompt_tokens")
        return Outcome(
            started_at=self.started_at,
            num_prompt=work.num_prompt if prompt is None else prompt,
            num_output=1 + len(self.gaps) if counted is None else counted,
            counted=counted is not None and prompt is not None,
            ttft_s=self.ttft_s or 0.0,
            latency_s=self.last_at - self.started_at,
            itl_s=tuple(self.gaps),
        )


async def send(
    client: "httpx2.AsyncClient", target: Target, work: Work, *, clock: Clock = time.perf_counter
) -> Outcome:
    """One request, to the end of its stream. What goes wrong with it is in the outcome, never raised.

    Raises:
        ServerError: nobody listens at the address.
    """
    import httpx2

    body = body_of(target, work)
    reading = _Reading(clock())
    try:
        async with client.stream("POST", target.url(target.endpoint), json=body) as response:
            if response.status_code != 200:
                reading.error = f"{response.status_code} {_message(await response.aread())}"
            else:
                await _read(response, reading, clock)
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise unreachable(target, error) from None
    except (httpx2.HTTPError, httpx2.StreamError) as error:
        reading.error = quote(f"{type(error).__name__}: {error}", MAX_ERROR)
    return reading.outcome(work)


async def _read(response: "httpx2.Response", reading: _Reading, clock: Clock) -> None:
    """Server-sent events: lines that begin with data:, all else (comments, blank lines) is not for us."""
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data != END:  # read on to the stream's end, or the connection is lost
            reading.take(data, clock())


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _message(content: bytes) -> str:
    """What an error's body says: OpenAI's form, FastAPI's, or the text."""
    try:
        value = json.loads(content)
    except ValueError:
        return quote(content.decode(errors="replace").strip(), MAX_ERROR)
    return _error_text(value.get("error", value.get("detail", value)) if isinstance(value, dict) else value)


def _error_text(error: Any) -> str:
    return quote(str(error.get("message", error)) if isinstance(error, dict) else str(error), MAX_ERROR)
