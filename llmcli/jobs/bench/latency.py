"""`bench latency`: how long one batch takes from its start to its last token, as `vllm bench latency` measures it.

The definition is that of vLLM's `vllm/benchmarks/latency.py`: a batch of equal requests with ignore_eos, timed as a
whole after warm-up iterations; mean and percentiles over the iterations. Sampling is greedy here, at temperature 1
there. Knows no table and no file.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcli.config import ResolvedConfig
from llmcli.errors import UsageError
from llmcli.jobs.bench.engine import Clock, random_prompts, run_batch
from llmcli.jobs.bench.result import Row
from llmcli.jobs.bench.stats import percentile

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine

PERCENTILES = (10, 25, 50, 75, 90, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyPlan:
    """One batch, again and again. Names and defaults are vLLM's."""

    input_len: int = 32
    output_len: int = 128
    batch_size: int = 8
    num_iters_warmup: int = 10
    num_iters: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("input_len", "output_len", "batch_size", "num_iters"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")

    @property
    def name(self) -> str:
        return f"latency in{self.input_len} out{self.output_len}"

    def check_fits(self, config: ResolvedConfig) -> None:
        """Raise a UsageError when the engine can not run the batch at once."""
        check_batch(self.input_len, self.output_len, self.batch_size, config)


def check_batch(num_input: int, num_output: int, batch: int, config: ResolvedConfig) -> None:
    """Raise a UsageError when the engine can not run `batch` sequences of these lengths at once."""
    length = num_input + num_output
    if length > config.max_model_len:
        raise UsageError(
            f"--input-len {num_input} and --output-len {num_output} need {length} tokens of context,"
            f" the model has {config.max_model_len} here",
            why=f"this context is: {config.reasons['max_model_len']}",
            fix="use a smaller --input-len or --output-len",
        )
    blocks = -(-length // config.block_size) * batch
    if batch > config.max_num_seqs or blocks > config.num_blocks:
        raise UsageError(
            f"--batch-size {batch} needs {blocks} KV blocks, the engine has {config.num_blocks}"
            f" for at most {config.max_num_seqs} sequences",
            fix="use a smaller one, or raise --kv-cache-memory or --max-num-seqs",
        )


def run_latency(
    engine: "Engine", plan: LatencyPlan, on_run: Callable[[str], None], *, clock: Clock = time.perf_counter
) -> Iterator[Row]:
    """Measure; the row comes after every iteration, with the times so far.

    Raises:
        UsageError: the engine is too small for the batch.
        EngineError: a request failed.
    """
    plan.check_fits(engine.config)
    source = random.Random(plan.seed)
    prompts = random_prompts(source, engine.spec.vocab_size, plan.batch_size, plan.input_len)
    for iteration in range(plan.num_iters_warmup):
        on_run(f"warm-up {iteration + 1} of {plan.num_iters_warmup}")
        run_batch(engine, prompts, plan.output_len, clock=clock)
    latencies: tuple[float, ...] = ()
    first_tokens: tuple[float, ...] = ()
    for iteration in range(plan.num_iters):
        on_run(f"iteration {iteration + 1} of {plan.num_iters}")
        times = run_batch(engine, prompts, plan.output_len, clock=clock)
        latencies = (*latencies, times.total_s)
        first_tokens = (*first_tokens, statistics.fmean(times.first_token_s))
        details = {"ttft_s": statistics.fmean(first_tokens), "percentiles": _percentiles(latencies)}
        yield Row(test=plan.name, batch=plan.batch_size, unit="s", samples=latencies, details=details)


def summary(row: Row) -> Mapping[str, Any]:
    """The keys of the file that `vllm bench latency --output-json` writes."""
    return {
        "avg_latency": statistics.fmean(row.samples),
        "latencies": list(row.samples),
        "percentiles": _percentiles(row.samples),
    }


def _percentiles(latencies: tuple[float, ...]) -> dict[str, float]:
    return {str(share): percentile(latencies, share) for share in PERCENTILES}
