"""Times the CPU kernels on shapes of real models: a table, and one JSON line at the end.

    python scripts/bench_kernels.py [--op NAME] [--set NAME] [--threads N] [--repeats N] [--json FILE]

Weights rotate through more than 64 MB, so that no cache flatters them. Times are medians with the extremes;
the ratio compares the medians of a peer (a dense bfloat16 F.linear) and of the kernel, timed in turns.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from llmcli_kernels import AttentionBatch, Int4Weight, KernelSet, select
from llmcli_kernels.paged_kv import PagedKV

ROTATE_BYTES = 64 << 20
LINEARS = {"qkv": (2560, 2048), "o": (2048, 2048), "gate_up": (11264, 2048), "down": (2048, 5632)}
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
DECODES = ((1, 128), (1, 2048), (8, 512), (64, 256), (64, 1024))


@dataclass(frozen=True)
class Timing:
    """One line of the table; times in microseconds."""

    op: str
    case: str
    median_us: float
    min_us: float
    max_us: float
    gb_per_s: float
    gflop_per_s: float
    peer_us: float | None


def measure(calls: list[Callable[[int], object]], repeats: int) -> list[list[float]]:
    """Seconds of each call, the calls taking turns; the argument counts up."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for index, call in enumerate(calls):
            start = time.perf_counter()
            call(turn)
            if turn:
                times[index].append(time.perf_counter() - start)
    return times


def timing(op: str, case: str, times: list[list[float]], num_bytes: float, flops: float) -> Timing:
    median = statistics.median(times[0])
    return Timing(
        op=op,
        case=case,
        median_us=round(median * 1e6, 1),
        min_us=round(min(times[0]) * 1e6, 1),
        max_us=round(max(times[0]) * 1e6, 1),
        gb_per_s=round(num_bytes / median / 1e9, 2),
        gflop_per_s=round(flops / median / 1e9, 1),
        peer_us=round(statistics.median(times[1]) * 1e6, 1) if len(times) > 1 else None,
    )


def random_weight(n: int, k: int, group_size: int = 128) -> Int4Weight:
    return Int4Weight(
        q=torch.randint(0, 256, (n, k // 2), dtype=torch.uint8),
        zeros=torch.randint(0, 16, (n, k // group_size), dtype=torch.uint8),
        scales=(torch.rand(n, k // group_size) * 0.01 + 0.001).half(),
        group_size=group_size,
    )


def bench_int4_linear(kernels: KernelSet, repeats: int) -> list[Timing]:
    results = []
    for name, (n, k) in LINEARS.items():
        copies = ROTATE_BYTES // (n * k // 2) + 1
        packed = [kernels.pack_int4(random_weight(n, k), torch.bfloat16) for _ in range(copies)]
        dense = [torch.randn(n, k).to(torch.bfloat16) for _ in range(max(2, copies // 4))]
        for rows in ROWS:
            x = torch.randn(rows, k).to(torch.bfloat16)
            calls = [
                lambda turn, x=x, weights=packed: kernels.int4_linear(x, weights[turn % len(weights)], None),
                lambda turn, x=x, weights=dense: F.linear(x, weights[turn % len(weights)]),
            ]
            times = measure(calls, repeats)
            case = f"{name} {n}x{k} M={rows}"
            results.append(timing("int4_linear", case, times, packed[0].nbytes, 2.0 * rows * n * k))
            print_line(results[-1])
    return results


def bench_paged_attention(kernels: KernelSet, repeats: int) -> list[Timing]:
    heads, kv_heads, head_size, block_size, layers = 32, 4, 64, 16, 4
    results = []
    for sequences, length in DECODES:
        blocks = -(-length // block_size)
        shape = (layers, 2, sequences * blocks, kv_heads, block_size, head_size)
        cache = torch.randn(shape).to(torch.bfloat16)
        kvs = [PagedKV(keys, values) for keys, values in cache]
        tables = torch.randperm(sequences * blocks).view(sequences, blocks)
        starts, lens = tuple(range(sequences + 1)), (length,) * sequences
        q = torch.randn(sequences, heads, head_size).to(torch.bfloat16)

        def step(turn: int, kvs=kvs, tables=tables, starts=starts, lens=lens, q=q) -> None:
            batch = AttentionBatch(starts, lens, tables)
            for kv in kvs:
                kernels.paged_attention(q, kv, batch, head_size**-0.5, None, None)

        times = measure([step], repeats)
        case = f"decode S={sequences} len={length} ({layers} layers)"
        flops = 4.0 * layers * sequences * length * heads * head_size
        results.append(timing("paged_attention", case, times, cache.nbytes, flops))
        print_line(results[-1])
    return results


def print_line(result: Timing) -> None:
    spread = f"{result.min_us:.0f}..{result.max_us:.0f}"
    versus = f"vs dense {result.peer_us / result.median_us:5.2f}x" if result.peer_us else ""
    print(
        f"{result.op:16s} {result.case:32s} {result.median_us:10.0f} us  {spread:>18s}"
        f"  {result.gb_per_s:7.2f} GB/s {result.gflop_per_s:8.1f} GFLOP/s  {versus}",
        flush=True,
    )


BENCHMARKS = {"int4_linear": bench_int4_linear, "paged_attention": bench_paged_attention}


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the CPU kernels on shapes of real models.")
    parser.add_argument("--op", choices=sorted(BENCHMARKS), help="only this operation")
    parser.add_argument(
        "--set", default="cpu", dest="kernel_set", help="kernel set (cpu, torch or reference)"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the JSON line to this file")
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    kernels = select("cpu", options.kernel_set)
    with torch.inference_mode():
        results = [
            result
            for name, run in BENCHMARKS.items()
            if options.op in (None, name)
            for result in run(kernels, options.repeats)
        ]
    report = {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": options.threads,
        "repeats": options.repeats,
        "kernel_set": kernels.name,
        "results": [asdict(result) for result in results],
    }
    line = json.dumps(report)
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
