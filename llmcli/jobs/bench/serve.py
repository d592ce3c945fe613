"""`bench serve`: requests sent to a server at a rate, and what its users would have waited.

Owns when requests are sent: a Poisson or gamma process of a rate, a limit on how many are under way. Any
OpenAI-compatible server will do. Knows no table and no file; `bench/client.py` sends, `bench/serve_metrics.py`
counts.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llmcli.errors import ServerError, UsageError
from llmcli.jobs.bench.client import Target, body_of, first_model, open_client, send
from llmcli.jobs.bench.engine import Clock
from llmcli.jobs.bench.serve_metrics import Outcome
from llmcli.jobs.bench.workload import Work

if TYPE_CHECKING:
    import httpx2


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """When requests are sent. Names and meanings are vLLM's.

    Attributes:
        request_rate: requests per second on average; infinite sends all at once.
        burstiness: shape of the gamma distribution of the intervals. 1 is a Poisson process, below 1 comes in
            bursts, above 1 is more even; infinite is a fixed interval.
        max_concurrency: most requests under way; None is no limit.
    """

    request_rate: float = math.inf
    burstiness: float = 1.0
    max_concurrency: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("request_rate", "burstiness"):
            if not getattr(self, name) > 0:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} must be above 0 (inf is allowed), got {getattr(self, name):g}")
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise UsageError(f"--max-concurrency must be at least 1, got {self.max_concurrency}")

    @property
    def name(self) -> str:
        """For the names of rows."""
        rate = "" if math.isinf(self.request_rate) else f" rate{self.request_rate:g}"
        burst = "" if self.burstiness == 1 else f" burst{self.burstiness:g}"
        most = "" if self.max_concurrency is None else f" c{self.max_concurrency}"
        return f"{rate}{burst}{most}"


def send_times(count: int, arrivals: Arrivals) -> list[float]:
    """Seconds from the start at which each of `count` requests is due.

    Intervals are drawn from a gamma distribution of mean 1 / rate (shape: burstiness) and added up; then all are
    stretched so that the last one is due at count / rate, which takes the luck of the draw out of the rate. As in
    `get_request` of vLLM's `vllm/benchmarks/serve.py`.
    """
    rate, shape = arrivals.request_rate, arrivals.burstiness
    if math.isinf(rate):
        return [0.0] * count
    source = random.Random(arrivals.seed)
    due, times = 0.0, []
    for _ in range(count):
        due += 1 / rate if math.isinf(shape) else source.gammavariate(shape, 1 / (rate * shape))
        times.append(due)
    stretch = count / rate / due if due else 1.0
    return [moment * stretch for moment in times]


@dataclass(slots=True)
class ServeRun:
    """Sends a workload to a server.

    Attributes:
        outcomes: of the requests that have ended, in that order; also when `run` is interrupted.
        started_at, ended_at: clock readings around the measured part; `ended_at` moves with every outcome.
    """

    target: Target
    works: Sequence[Work]
    arrivals: Arrivals
    num_warmups: int = 0
    clock: Clock = time.perf_counter
    outcomes: list[Outcome] = field(default_factory=list)
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def duration_s(self) -> float:
        return self.ended_at - self.started_at

    def run(self, on_outcome: Callable[[Outcome], None], on_run: Callable[[str], None]) -> None:
        """Send all; returns when all have ended.

        Raises:
            ServerError: nobody answers at the address, or the first request fails: then nothing is measured.
            UsageError: the endpoint does not take these prompts.
            KeyboardInterrupt: what has ended until then is in `outcomes`.
        """
        for work in self.works:
            body_of(self.target, work)  # refuses a kind of prompt that does not suit the endpoint
        asyncio.run(self._run(on_outcome, on_run))

    async def _run(self, on_outcome: Callable[[Outcome], None], on_run: Callable[[str], None]) -> None:
        async with open_client(self.target) as client:
            if self.target.model is None:
                self.target = replace(self.target, model=await first_model(client, self.target))
            on_run(f"asking {self.target.model} at {self.target.address} once, to see that it answers")
            await self._try_out(client)
            for number in range(self.num_warmups):
                on_run(f"warm-up {number + 1} of {self.num_warmups}")
                await send(client, self.target, self.works[number % len(self.works)], clock=self.clock)
            on_run(f"{len(self.works)} requests")
            await self._send_all(client, on_outcome)

    async def _try_out(self, client: "httpx2.AsyncClient") -> None:
        outcome = await send(client, self.target, self.works[0], clock=self.clock)
        if outcome.error is None:
            return
        fix = "check --model and --endpoint"
        if "ignore_eos" in outcome.error:
            fix = "this server does not know ignore_eos: use --no-ignore-eos"
        raise ServerError("the server does not serve the first request", why=outcome.error, fix=fix)

    async def _send_all(self, client: "httpx2.AsyncClient", on_outcome: Callable[[Outcome], None]) -> None:
        places = asyncio.Semaphore(self.arrivals.max_concurrency or len(self.works))
        self.started_at = self.ended_at = self.clock()

        async def one(work: Work) -> None:
            async with places:
                asked_at = self.clock()
                try:
                    outcome = await send(client, self.target, work, clock=self.clock)
                except ServerError as error:  # it was there before: this request has failed, others may not
                    outcome = Outcome(started_at=asked_at, error=f"{error.what}: {error.why}")
            self.ended_at = self.clock()
            self.outcomes.append(outcome)
            on_outcome(outcome)

        async with asyncio.TaskGroup() as tasks:
            for work, due in zip(self.works, send_times(len(self.works), self.arrivals), strict=True):
                if (wait := self.started_at + due - self.clock()) > 0:
                    await asyncio.sleep(wait)
                tasks.create_task(one(work))
