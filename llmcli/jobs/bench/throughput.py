"""`bench throughput`: how many requests and tokens an engine gets through when all requests are there at once.

The definitions are those of vLLM's `vllm/benchmarks/throughput.py`: requests per second, and prompt and output
tokens per second, are totals over the time from the first request's start to the last one's end; prompts that are
found in the prefix cache count as well. Knows no table and no file.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmcli.config import ResolvedConfig
from llmcli.errors import UsageError
from llmcli.jobs.bench.engine import Clock, run_batch
from llmcli.jobs.bench.result import Row
from llmcli.jobs.bench.workload import Work

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine

TELL_EVERY_S = 2.0
UNITS = {"requests": "req/s", "total": "tok/s", "output": "tok/s"}


def check_works(works: Sequence[Work], config: ResolvedConfig) -> None:
    """Raise a UsageError for the first request that the engine can not hold."""
    room = min(config.max_model_len, config.num_blocks * config.block_size)
    for index, work in enumerate(works):
        if work.num_prompt + work.num_output > room:
            raise UsageError(
                f"request {index + 1} needs {work.num_prompt + work.num_output} tokens"
                f" ({work.num_prompt} + {work.num_output}), a sequence may have {room} here",
                fix="use a smaller --input-len or --output-len, or a dataset of shorter prompts",
            )


@dataclass(slots=True)
class Totals:
    """What was done since `started`, in the clock's seconds."""

    started: float
    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    elapsed_s: float = 0.0

    def add(self, num_prompt: int, num_output: int, now: float) -> None:
        self.requests += 1
        self.prompt_tokens += num_prompt
        self.output_tokens += num_output
        self.elapsed_s = now - self.started

    def rates(self) -> dict[str, float]:
        """By the names of UNITS; empty before the first request has ended."""
        if not self.requests or self.elapsed_s <= 0:
            return {}
        tokens = {"total": self.prompt_tokens + self.output_tokens, "output": self.output_tokens}
        counts = {"requests": self.requests, **tokens}
        return {name: count / self.elapsed_s for name, count in counts.items()}


@dataclass(slots=True)
class ThroughputRun:
    """Runs a workload `repeats` times.

    Attributes:
        name: of the workload, for the rows.
        done: the totals of each run that was finished.
        current: those of the one that runs.
    """

    engine: "Engine"
    works: Sequence[Work]
    name: str
    repeats: int = 1
    clock: Clock = time.perf_counter
    done: list[Totals] = field(default_factory=list)
    current: Totals | None = None

    def run(self, on_run: Callable[[str], None]) -> Iterator[list[Row]]:
        """Measure; all rows come after each run.

        Raises:
            UsageError: a request is too long for the engine.
            EngineError: a request failed.
        """
        check_works(self.works, self.engine.config)
        on_run("warm-up")
        shortest = min(self.works, key=lambda work: work.num_prompt)
        run_batch(self.engine, [shortest.prompt], 1, clock=self.clock)
        for repeat in range(self.repeats):
            which = "" if self.repeats == 1 else f", run {repeat + 1} of {self.repeats}"
            on_run(f"{len(self.works)} requests{which}")
            self.current = Totals(self.clock())
            self._run_once(on_run, self.current)
            self.done.append(self.current)
            self.current = None
            yield self.rows()

    def _run_once(self, on_run: Callable[[str], None], totals: Totals) -> None:
        told = totals.started

        def on_done(num_prompt: int, num_output: int) -> None:
            nonlocal told
            now = self.clock()
            totals.add(num_prompt, num_output, now)
            if now - told >= TELL_EVERY_S:
                told = now
                rate = totals.rates().get("output", 0.0)
                on_run(f"{totals.requests} of {len(self.works)} requests, {rate:.1f} output tokens/s")

        outputs = [work.num_output for work in self.works]
        prompts = [work.prompt for work in self.works]
        times = run_batch(self.engine, prompts, outputs, clock=self.clock, on_done=on_done)
        totals.elapsed_s = times.total_s

    def rows(self) -> list[Row]:
        """One row for each rate; of the run that was stopped, if none was finished."""
        runs = self.done or [totals for totals in (self.current,) if totals is not None]
        rates = [rate for totals in runs if (rate := totals.rates())]
        if not rates:
            return []
        return [
            Row(test=f"{self.name}: {name}", unit=unit, samples=tuple(rate[name] for rate in rates))
            for name, unit in UNITS.items()
        ]

    def summary(self) -> Mapping[str, Any]:
        """The keys of the file that `vllm bench throughput --output-json` writes, of the last run."""
        totals = self.done[-1] if self.done else self.current
        if totals is None or not (rates := totals.rates()):
            return {}
        return {
            "elapsed_time": totals.elapsed_s,
            "num_requests": totals.requests,
            "total_num_tokens": totals.prompt_tokens + totals.output_tokens,
            "total_prompt_tokens": totals.prompt_tokens,
            "total_output_tokens": totals.output_tokens,
            "requests_per_second": rates["requests"],
            "tokens_per_second": rates["total"],
        }
