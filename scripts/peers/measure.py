"""How a test is measured on anything that generates in this process.

One definition for all of them: llama.cpp alone brings its own tools. Standard library only.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from scripts.peers.workload import BenchTest, Request

PROMPTS = 3
WARM_UP_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Timing:
    """One batch: seconds until every sequence had its first token, tokens that came after that, seconds in all."""

    first_s: float
    decoded_tokens: int
    total_s: float


class Generator(Protocol):
    """A loaded model. `generate` answers the requests greedily, together, with exactly the wanted tokens."""

    def generate(self, requests: list[Request]) -> Timing: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """The test's figure in its unit, and what else is worth keeping."""

    value: float
    more: dict[str, Any]


def measure(generator: Generator, test: BenchTest) -> Measured:
    """Run a test once; a short run ahead of it, not timed, so that nothing is set up within."""
    requests = test.requests()
    if test.kind == "mixed":
        timing = generator.generate(requests)
        return Measured(sum(count for _, count in requests) / timing.total_s, {"total_s": timing.total_s})
    if test.kind == "prompt":
        generator.generate(requests)
        seconds = [generator.generate(requests).first_s for _ in range(PROMPTS)]
        return Measured(test.prompt_tokens / statistics.mean(seconds), {"runs_s": seconds})
    generator.generate([(ids, min(count, WARM_UP_TOKENS)) for ids, count in requests])
    timing = generator.generate(requests)
    decode_s = timing.total_s - timing.first_s
    return Measured(timing.decoded_tokens / decode_s, {"first_s": timing.first_s, "decode_s": decode_s})


def follow(wanted: Mapping[str, int], step: Callable[[], list[tuple[str, int]]], started: float) -> Timing:
    """Step an engine until every request has its tokens.

    Args:
        wanted: tokens to come, by request.
        step: one step of the engine: which requests got how many new tokens.
        started: when the requests were given to it, of time.perf_counter.
    """
    left, without_token = dict(wanted), set(wanted)
    now = first_at = started
    decoded = 0
    while any(left.values()):
        added = step()
        now = time.perf_counter()
        if without_token:
            without_token -= {request for request, count in added if count}
            first_at = now
        else:
            decoded += sum(count for _, count in added)
        for request, count in added:
            left[request] -= count
    return Timing(first_at - started, decoded, now - started)
