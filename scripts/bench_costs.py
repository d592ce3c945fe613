#!/usr/bin/env python3
"""How a step's time on the CPU grows with context and batch, beside what the memory's read bandwidth allows.

    python -m scripts.bench_costs MODEL [--threads N] [--repeats N] [--json FILE] [--plot FILE]

Decodes at batch 1 with 128 to 8,192 tokens of context and at context 128 with 1 to 64 sequences, and processes prompts
of 128 to 2,048 tokens, as far as the model's context goes. A round goes through all points in an order drawn anew and
measures the read bandwidth first, so that the machine's drift hits all alike. benchmarks/README.md explains the table.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from llmcli import LLM
from llmcli.engine.engine import Engine
from llmcli.errors import LLMCliError
from llmcli.jobs.bench.quick import read_bandwidth
from llmcli.jobs.environment import environment
from llmcli.model.forward_batch import KVCache
from llmcli.runtime.runner import Runner
from scripts.costs.figures import Figure, Round, table
from scripts.costs.plot import check_matplotlib, draw
from scripts.costs.points import CONTEXTS, Plan
from scripts.costs.roofline import Roofline
from scripts.costs.timed_runner import TimedRunner
from scripts.peers.meter import Meter

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 9


def fill(cache: KVCache, num_blocks: int) -> None:
    """Write the blocks that are used: reading memory that was never written costs nothing."""
    generator = torch.Generator().manual_seed(0)
    for kv in cache.layers:
        for part in (kv.keys, kv.values):
            part[:num_blocks].copy_(torch.randn(part[:num_blocks].shape, generator=generator))
        for scales in (kv.key_scales, kv.value_scales):
            if scales is not None:
                scales[:num_blocks].fill_(1.0)


def measure(engine: Engine, runner: Runner, plan: Plan, repeats: int) -> list[Round]:
    """All points, `repeats` times."""
    config = engine.config
    steps = {point: point.steps(config, engine.spec.vocab_size) for point in plan.points}
    fill(runner.cache, max(point.num_blocks(config.block_size) for point in steps))
    timed = TimedRunner(runner)
    say("warm-up")
    for point in sorted(steps, key=lambda point: -point.batch * point.tokens):  # the largest buffers first
        timed.run(steps[point])
    if not timed.has_native_program:
        say("the layers are not one native program: the shares of their kernels are not known")
    rounds = []
    for number in range(1, repeats + 1):
        meter, bandwidth = Meter(), read_bandwidth(config.num_threads)
        order = random.Random(number).sample(list(steps), len(steps))
        timings = {point: timed.run(steps[point]) for point in order}
        rounds.append(Round(bandwidth, timings, meter.stop()))
        say(
            f"round {number} of {repeats}: {bandwidth / 1e9:.1f} GB/s, {others(rounds[-1:]):.2f} cores used by others"
        )
    return rounds


def others(rounds: Sequence[Round]) -> float:
    """The most cores that other processes had in a round, 0 where that is not known."""
    return max((each.meter["other_cpu_s"] or 0) / (each.meter["wall_s"] or 1) for each in rounds)


def report(series: dict[str, list[Figure]], rounds: Sequence[Round]) -> str:
    bandwidths = [each.read_bytes_per_s / 1e9 for each in rounds]
    lines = [
        f"read bandwidth {statistics.median(bandwidths):.1f} GB/s ({min(bandwidths):.1f}..{max(bandwidths):.1f}),"
        f" {len(rounds)} rounds, up to {others(rounds):.2f} cores used by other processes"
    ]
    for name, figures in series.items():
        lines += ["", *table(TITLES[name], figures)]
    return "\n".join(lines)


TITLES = {
    "contexts": "a decode step against context",
    "batches": "a decode step against batch",
    "prompts": "a prompt against its length",
}


def record(
    engine: Engine, roofline: Roofline, series: dict[str, list[Figure]], rounds: Sequence[Round]
) -> dict[str, Any]:
    """All of it, JSON-ready."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return {
        "commit": commit.stdout.strip() or None,
        "environment": environment(engine),
        "roofline": asdict(roofline),
        "rounds": [{"read_bytes_per_s": each.read_bytes_per_s, "meter": each.meter} for each in rounds],
        **{name: [figure.record() for figure in figures] for name, figures in series.items()},
    }


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run(args: argparse.Namespace) -> None:
    if args.plot:
        check_matplotlib()
    engine = LLM(args.model, device="cpu", num_threads=args.threads).engine
    runner: Runner = engine._runner  # driven by hand: a scheduler would have to compute all contexts first
    plan, roofline = Plan.within(engine.config), Roofline.of(runner.decoder, engine.config)
    if engine.config.max_model_len < max(CONTEXTS):
        say(f"the context is {engine.config.max_model_len} tokens: longer points are left out")
    rounds = measure(engine, runner, plan, args.repeats)
    series: dict[str, list[Figure]] = {}
    for name in TITLES:
        for point in getattr(plan, name):
            read_bytes = roofline.read_bytes(point.steps(engine.config, engine.spec.vocab_size))
            series.setdefault(name, []).append(Figure.of(point, read_bytes, rounds))
    print(report(series, rounds))
    if args.json:
        args.json.write_text(json.dumps(record(engine, roofline, series, rounds), indent=1) + "\n", "utf-8")
    if args.plot:
        threads = engine.config.num_threads
        title = f"{Path(engine.model.name).name}, {threads} thread{'s' if threads > 1 else ''}"
        draw(args.plot, title, series["contexts"], series["batches"])


def count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"must be a number in 1..1000, got {text!r}")
    return int(text)


def output(text: str) -> Path:
    """A file that can be written when all is measured."""
    if not Path(text).parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(Path(text).parent)!r}")
    return Path(text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure how a step's time grows with context and batch.")
    parser.add_argument("model", help="folder, or a name from the hub")
    parser.add_argument("--threads", type=count, help="as the engine would choose")
    parser.add_argument("--repeats", type=count, default=REPEATS, help=f"rounds over all points ({REPEATS})")
    parser.add_argument("--json", type=output, metavar="FILE", help="for the result")
    parser.add_argument("--plot", type=output, metavar="FILE", help="SVG; needs matplotlib")
    args = parser.parse_args(arguments)
    try:
        run(args)
    except LLMCliError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
