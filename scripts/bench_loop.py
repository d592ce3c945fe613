#!/usr/bin/env python3
"""What the loop around the kernels costs: the engine on a device whose every step takes the same time.

    python scripts/bench_loop.py
    python scripts/bench_loop.py --sequences 256 --kernel-ms 10 --profile

Everything of the engine runs as it does on a GPU: scheduler, block tables, the tensors that a captured graph reads,
texts. Only the kernels do not: the device is a clock, on which a step begins when it has been handed over and the one
before is done. The clock shows the processor time of this thread, and skips what it would wait: what else the machine
does is not in the figures, but for what it does to caches; nor is what CUDA's own calls cost (some ten microseconds
each). Told for each loop, one step ahead and one at a time, over steps in which all sequences decode: Python's time in
a step, and how long the device had nothing to do. The last line on stdout is JSON.
"""

import argparse
import cProfile
import json
import platform
import pstats
import random
import statistics
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from llmcli.config import MIB, EngineConfig, ResolvedConfig
from llmcli.engine.engine import Engine
from llmcli.hardware import read_hardware_facts
from llmcli.hub.models import resolve_model
from llmcli.jobs.environment import cpu_name
from llmcli.model.facts import read_model_facts
from llmcli.model.forward_batch import KVCache
from llmcli.model.spec import read_model_spec
from llmcli.plan import resolve
from llmcli.runtime.decode_graphs import DecodeGraphs, Run
from llmcli.runtime.runner import Draw, Runner, Wait
from llmcli.sampling import SamplingParams
from llmcli.scheduler.scheduler import Scheduler, SchedulerConfig
from llmcli.scheduler.step import Step, StepResult
from llmcli.text.tokenizer import Tokenizer, load_tokenizer
from llmcli_kernels.paged_kv import PagedKV

SETTLED_STEPS = 20  # before the first that counts
TEXT = """Once upon a time there was a lighthouse keeper who wrote everything down: ships, storms, the price of oil.
"Nobody will ever read it," said the girl from the village. He shrugged, and wrote that down too."""


@dataclass
class Clock:
    """A device as a clock sees it. Time is what this thread has computed, and what it would have waited.

    Attributes:
        free_at: when the device has done all that it was given.
        idle: seconds that it had nothing to do before each step.
        waited: seconds that this thread waited for it, in all.
    """

    kernel_s: float
    free_at: float = 0.0
    idle: list[float] = field(default_factory=list)
    waited: float = 0.0

    def now(self) -> float:
        return time.thread_time() + self.waited

    def begin(self) -> float:
        """A step is handed over; says when it will be done."""
        started = max(self.now(), self.free_at)
        self.idle.append(started - self.free_at)
        self.free_at = started + self.kernel_s
        return self.free_at

    def wait(self, until: float) -> None:
        self.waited += max(0.0, until - self.now())


@dataclass
class TimedDevice:
    """A runner that prepares every step as for a GPU, and has a clock in the place of kernels."""

    runner: Runner
    clock: Clock

    def begin(self, step: Step) -> Draw:
        draw = self.runner.begin(step)
        done_at = self.clock.begin()

        def drawn(step: Step) -> Wait:
            wait = draw(step)

            def result() -> StepResult:
                self.clock.wait(done_at)
                return wait()

            return result

        return drawn


class Texts:
    """Ids that spell a text, so that they are as hard to turn into characters as what a model writes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._ids = torch.tensor(tokenizer.encode(TEXT))
        self._step = 0

    def draw(self, rows: int) -> Tensor:
        """[2, rows]: the next token of every row, each at another place of the text, and that all are finite."""
        self._step += 1
        places = (self._step + 7 * torch.arange(rows)) % len(self._ids)
        return torch.stack((self._ids[places], torch.ones(rows, dtype=torch.int64)))


@dataclass(frozen=True)
class Load:
    """What runs: so many sequences with prompts of `context` tokens, for so many steps in which all decode."""

    sequences: int
    context: int
    steps: int
    kernel_s: float

    @property
    def budget(self) -> int:
        """Tokens of a step: half of them at least are left for prompts, however many sequences decode."""
        return max(512, 2 * self.sequences)

    @property
    def output_tokens(self) -> int:
        """Enough for the first sequence to run until the last prompt is done and all steps were measured."""
        prompt_steps = -(-self.sequences * self.context // (self.budget - self.sequences))
        return prompt_steps + 2 * SETTLED_STEPS + self.steps


def make_engine(load: Load, ahead: bool, clock: Clock) -> Engine:
    model = resolve_model(None)
    spec, tokenizer = read_model_spec(model.path), load_tokenizer(model.path)
    plan = make_plan(
        load,
        ahead,
        resolve(
            EngineConfig(device="cpu", kv_cache_memory=256 * MIB),
            read_model_facts(model.path, spec),
            read_hardware_facts(None),
        ),
    )
    texts = Texts(tokenizer)
    decoder: Any = SimpleNamespace(
        spec=spec,
        cos_sin=torch.zeros(1),
        forward=lambda batch, cache: torch.zeros(len(batch.sample_rows), spec.vocab_size),
        kernels=SimpleNamespace(sample=lambda logits, batch: tuple(texts.draw(len(logits)))),
    )
    slots = torch.zeros(plan.num_blocks + 1, 1, plan.block_size, 1)
    cache = KVCache((PagedKV(slots, slots),))

    def capture(run: Run) -> Run:
        rows = run().shape[1]
        return lambda: texts.draw(rows)

    graphs = DecodeGraphs(decoder, cache, plan.max_num_seqs, plan.max_model_len, capture)
    runner: Any = TimedDevice(Runner(decoder, cache, plan.block_size, graphs), clock)
    return Engine(
        model=model,
        spec=spec,
        config=plan,
        tokenizer=tokenizer,
        scheduler=Scheduler(
            SchedulerConfig(
                num_blocks=plan.num_blocks,
                block_size=plan.block_size,
                max_num_seqs=plan.max_num_seqs,
                max_num_batched_tokens=plan.max_num_batched_tokens,
                max_model_len=plan.max_model_len,
            )
        ),
        runner=runner,
        generation_defaults={},
        eos_ids=frozenset({0}),
    )


def make_plan(load: Load, ahead: bool, plan: ResolvedConfig) -> ResolvedConfig:
    """Room for all sequences at once; no memory is taken for keys and values."""
    longest = load.context + load.output_tokens
    return replace(
        plan,
        max_model_len=longest,
        max_num_seqs=load.sequences,
        max_num_batched_tokens=load.budget,
        num_blocks=load.sequences * (-(-longest // plan.block_size)),
        async_scheduling=ahead,
    )


def measure(load: Load, ahead: bool, watch: Any) -> tuple[list[float], list[float]]:
    """Seconds of Python and seconds without work for the device, of every measured step."""
    clock, source = Clock(load.kernel_s), random.Random(0)
    engine = make_engine(load, ahead, clock)
    params = SamplingParams(
        temperature=0.8,
        top_p=0.95,
        seed=1,
        max_tokens=load.output_tokens,
        ignore_eos=True,
    )
    for _ in range(load.sequences):
        engine.add([source.randrange(engine.spec.vocab_size) for _ in range(load.context)], params)
    begun: set[str] = set()
    while len(begun) < load.sequences:
        begun.update(event.request_id for event in engine.step())
    for _ in range(SETTLED_STEPS):
        engine.step()
    python, first = [], len(clock.idle)
    with watch:
        for _ in range(load.steps):
            started = time.thread_time()
            events = engine.step()
            python.append(time.thread_time() - started)
            assert len(events) == load.sequences
    return python, clock.idle[first : first + load.steps]


def figures(values: list[float]) -> dict[str, float]:
    """Microseconds."""
    cuts = statistics.quantiles(values, n=10)
    parts = {"median": statistics.median(values), "p10": cuts[0], "p90": cuts[-1], "max": max(values)}
    return {name: round(value * 1e6, 1) for name, value in parts.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Measure the engine's loop on a device that is only a clock."
    )
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--context", type=int, default=1024, help="tokens of each prompt (1024)")
    parser.add_argument("--kernel-ms", type=float, default=5.0, help="what a step takes on the device (5)")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="print where the time of one run goes")
    options = parser.parse_args()
    load = Load(options.sequences, options.context, options.steps, options.kernel_ms / 1000)
    if options.profile:
        profile = cProfile.Profile()
        measure(load, True, profile)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    rows = []
    for repeat in range(options.repeats):
        for ahead in (True, False):
            python, idle = measure(load, ahead, nullcontext())
            rows.append({"ahead": ahead, "python_us": figures(python), "idle_us": figures(idle)})
            how = "one ahead" if ahead else "one at a time"
            shown = f"Python {rows[-1]['python_us']}, idle {rows[-1]['idle_us']}"
            print(f"run {repeat + 1}, {how}: {shown} us a step", file=sys.stderr)
    machine = {"cpu": cpu_name(), "python": platform.python_version(), "torch": torch.__version__}
    print(json.dumps({"load": vars(options), "runs": rows, "machine": machine}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
