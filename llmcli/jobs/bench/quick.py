"""The quick benchmark: prompt processing and generation at several sizes, against the memory's roofline.

Tests are named as llama-bench names them: pp512 processes a prompt of 512 tokens, tg128 generates 128, pp512+tg128
does both, and @ d1024 does it behind a context of 1024. Owns what is measured; how a batch is timed is
`bench/engine.py`'s, what is printed the command's business.
"""

import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcli.config import ResolvedConfig
from llmcli.errors import UsageError
from llmcli.hardware import read_hardware_facts
from llmcli.jobs.bench.engine import Clock, random_prompts, run_batch, run_decode_steps
from llmcli.jobs.bench.result import Row

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine

MAX_REPEATS = 1000
MAX_TESTS = 1000
WARMUP_TOKENS = 8
LEAST_READ = 1 << 24  # bytes


@dataclass(frozen=True, slots=True)
class BenchTest:
    """One row: a prompt of `prompt` tokens, then `output` tokens, for `batch` sequences behind `depth` tokens each."""

    prompt: int
    output: int
    depth: int
    batch: int

    @property
    def name(self) -> str:
        """As llama-bench writes it."""
        parts = (f"pp{self.prompt}" * bool(self.prompt), f"tg{self.output}" * bool(self.output))
        return "+".join(filter(None, parts)) + (f" @ d{self.depth}" if self.depth else "")

    @property
    def only_generates(self) -> bool:
        return self.prompt == 0

    @property
    def first_prompt(self) -> int:
        """Tokens of the prompt that the engine is given; something has to be there to generate from."""
        return max(1, self.depth + self.prompt)

    def max_tokens(self, config: ResolvedConfig) -> int:
        """What one sequence may generate.

        Where only steady steps are timed, the first sequences of a batch go on while the last ones wait for their
        prompt: each step gives the running ones a token each, and what is left of its budget to prompts.
        """
        if not self.only_generates:
            return max(1, self.output)
        share = max(1, config.max_num_batched_tokens - self.batch)
        return self.output + 1 + -(-self.batch * self.first_prompt // share)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What to measure; every combination is one test.

    Attributes:
        prompt_tokens: lengths of the prompts whose processing is timed, one sequence at a time.
        output_tokens: tokens that each sequence generates.
        pairs: (prompt, output) lengths of tests that do both.
        depths: tokens that are in the context before.
        batches: how many sequences generate at once.
        repeats: runs of each test.
    """

    prompt_tokens: tuple[int, ...] = (512,)
    output_tokens: tuple[int, ...] = (128,)
    pairs: tuple[tuple[int, int], ...] = ()
    depths: tuple[int, ...] = (0,)
    batches: tuple[int, ...] = (1, 8, 32)
    repeats: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            raise UsageError(f"--batch must be one or more sizes of at least 1, got {list(self.batches)}")
        if not 1 <= self.repeats <= MAX_REPEATS:
            raise UsageError(f"--repeats must be in 1..{MAX_REPEATS}, got {self.repeats}")
        for prompt, output in self.pairs:
            if prompt < 1 or output < 1:
                raise UsageError(f"-pg needs two lengths of at least 1, got {prompt},{output}")
        if not self.depths:
            raise UsageError("--depth must be one or more lengths, got none")
        tests = self.tests()
        if not tests:
            raise UsageError(
                "there is nothing to measure",
                why="--prompt-tokens and --output-tokens are 0 or empty",
                fix="leave them out for pp512 and tg128",
            )
        if len(tests) > MAX_TESTS:
            raise UsageError(f"the plan has {len(tests)} tests, at most {MAX_TESTS} are allowed")

    def tests(self) -> list[BenchTest]:
        """In the order in which they run; a length of 0 asks for no test."""
        tests = []
        for depth in self.depths:
            tests += [BenchTest(prompt, 0, depth, 1) for prompt in self.prompt_tokens if prompt]
            for batch in self.batches:
                tests += [BenchTest(0, output, depth, batch) for output in self.output_tokens if output]
                tests += [BenchTest(prompt, output, depth, batch) for prompt, output in self.pairs]
        return list(dict.fromkeys(tests))

    def check_fits(self, config: ResolvedConfig) -> None:
        """Raise a UsageError when the model's context or the KV cache is too small for a test."""
        for test in self.tests():
            _check_fits(test, config)


def _check_fits(test: BenchTest, config: ResolvedConfig) -> None:
    length = test.first_prompt + test.max_tokens(config)
    if length > config.max_model_len:
        raise UsageError(
            f"{test.name} at batch {test.batch} needs {length} tokens of context,"
            f" the model has {config.max_model_len} here",
            why=f"this context is: {config.reasons['max_model_len']}",
            fix="use a smaller --prompt-tokens (-p), --output-tokens (-n), --depth (-d) or --batch (-b)",
        )
    blocks = -(-length // config.block_size) * test.batch
    if test.batch > config.max_num_seqs or blocks > config.num_blocks:
        raise UsageError(
            f"{test.name} at batch {test.batch} needs {blocks} KV blocks, the engine has {config.num_blocks}"
            f" for at most {config.max_num_seqs} sequences",
            fix="use a smaller --batch (-b), or raise --kv-cache-memory or --max-num-seqs",
        )
    if test.batch >= config.max_num_batched_tokens:
        raise UsageError(
            f"a batch of {test.batch} needs --max-num-batched-tokens above it, it is"
            f" {config.max_num_batched_tokens}",
            why="a step has to have room for a token of each sequence and for prompts",
        )
    if test.prompt and test.depth and not config.enable_prefix_caching:
        raise UsageError(
            f"{test.name} needs the prefix cache, which holds the context while the prompt is timed",
            fix="leave out --no-prefix-caching",
        )


def run_bench(
    engine: "Engine", plan: BenchPlan, on_run: Callable[[str], None], *, clock: Clock = time.perf_counter
) -> Iterator[Row]:
    """Measure, run by run: each test's row comes after every repeat, with the samples so far.

    Args:
        on_run: told what runs now, before each run.

    Raises:
        UsageError: the engine is too small for the plan.
        EngineError: a request failed.
    """
    plan.check_fits(engine.config)
    source = random.Random(plan.seed)
    on_run("warm-up")
    _warm_up(engine, source, plan)
    for test in plan.tests():
        rates: tuple[float, ...] = ()
        first_tokens: tuple[float, ...] = ()
        for repeat in range(plan.repeats):
            batch = f" at batch {test.batch}" if test.output else ""
            on_run(f"{test.name}{batch}, run {repeat + 1} of {plan.repeats}")
            rate, first_token_s = _measure(engine, source, test, clock)
            rates, first_tokens = (*rates, rate), (*first_tokens, first_token_s)
            yield _row(engine, test, rates, first_tokens)


def _warm_up(engine: "Engine", source: random.Random, plan: BenchPlan) -> None:
    """One short batch of the largest size, and one prompt of the longest: what is made at first use is made here."""
    tests, vocab = plan.tests(), engine.spec.vocab_size
    widest = max(test.batch for test in tests)
    run_batch(engine, random_prompts(source, vocab, widest, WARMUP_TOKENS), WARMUP_TOKENS)
    if longest := max(test.prompt for test in tests):
        run_batch(engine, random_prompts(source, vocab, 1, longest), 1)


def _measure(engine: "Engine", source: random.Random, test: BenchTest, clock: Clock) -> tuple[float, float]:
    """Tokens per second of one run, and the mean time to the first token in seconds."""
    prompts = random_prompts(source, engine.spec.vocab_size, test.batch, test.first_prompt)
    if test.only_generates:
        decode = run_decode_steps(engine, prompts, test.output, test.max_tokens(engine.config), clock=clock)
        return decode.num_output / decode.decode_s, statistics.fmean(decode.first_token_s)
    cached = [prompt[: test.depth] for prompt in prompts] if test.depth else ()
    times = run_batch(engine, prompts, max(1, test.output), cached=cached, clock=clock)
    num_tokens = times.num_computed + (times.num_output if test.output else 0)
    return num_tokens / times.total_s, statistics.fmean(times.first_token_s)


def _row(engine: "Engine", test: BenchTest, rates: tuple[float, ...], first_tokens: tuple[float, ...]) -> Row:
    details: dict[str, Any] = {
        "prompt_tokens": test.prompt,
        "output_tokens": test.output,
        "depth": test.depth,
        "ttft_s": statistics.fmean(first_tokens),
        "weight_bytes_per_s": None,  # of prompts arithmetic is the limit, not the memory
    }
    if test.only_generates:
        details["weight_bytes_per_s"] = statistics.median(rates) / test.batch * bytes_per_step(engine)
    return Row(test=test.name, batch=test.batch, unit="tok/s", samples=rates, details=details)


def bytes_per_step(engine: "Engine") -> int:
    """Bytes of weights that every decode step reads: all but an embedding that is only looked up in."""
    spec, item = engine.spec, {"float32": 4}.get(engine.config.dtype, 2)
    is_head = spec.tie_word_embeddings and engine.config.lm_head == "full"  # int8 is a copy of it
    looked_up = 0 if is_head else spec.vocab_size * spec.hidden_size * item
    return engine.config.weight_bytes - looked_up


def read_bandwidth(num_threads: int, device: str = "cpu", size: int = 1 << 29, repeats: int = 7) -> float:
    """Bytes per second that the GPU, or all threads together, read from memory: the best of several sums over a
    large array."""
    import torch

    torch.set_num_threads(num_threads)
    if device == "cpu":  # the engine may have left little
        size = min(size, max(LEAST_READ, read_hardware_facts().free_memory // 2))
    else:  # a quarter of it is for the sums
        size = min(size, torch.cuda.mem_get_info()[0] * 3 // 4)
    data = torch.ones(size // 4, dtype=torch.float32, device=device)
    data.sum().item()
    # sums are queued on a GPU: several of them, so that the wait for the last one does not count
    sums = 1 if device == "cpu" else 20
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(sums):
            total = data.sum()
        total.item()
        times.append((time.perf_counter() - started) / sums)
    return size / min(times)


def peak_memory() -> int:
    """The most memory this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_gpu_memory(engine: "Engine") -> int | None:
    """The most memory that tensors have had on the GPU, in bytes; None on a CPU."""
    import torch

    return torch.cuda.max_memory_allocated() if engine.config.device == "cuda" else None


def release_gpu_cache() -> None:
    """Give back what torch's allocator keeps on a GPU: to the next engine it would count as taken."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
