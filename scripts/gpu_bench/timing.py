"""How long GPU work takes: CUDA graph replay, and the two ceilings that every figure is held against.

Owns the method. Calls are captured into one graph, each with weights or a KV cache of its own so that the L2 cache
flatters none. The graph is replayed at least fifty times, and the time of a call is that of a replay over the number
of calls: the gaps between launches are those of a captured decode step. Where capture fails the calls are launched
one by one between two events, and `how` says so. In a dry run every call runs once by the wall clock.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from scripts.gpu_bench.session import Session

Call = Callable[[], object]
LEAST_ROTATION = 200_000_000  # bytes
LEAST_CALLS = 20  # of a short kernel in one graph, so that the replay's own start-up does not count
SHORT_US = 500.0
LONG_US = 3000.0  # so much work hides what a cache does: no turns are taken
REPEATS = 50
READ_BYTES = 2 << 30
PEAK_SIZE = 8192


@dataclass(frozen=True)
class Timing:
    """Microseconds of one call.

    Attributes:
        how: "graph", "eager" (capture failed: launches are included) or "dry run" (means nothing).
    """

    median_us: float
    min_us: float
    max_us: float
    repeats: int
    how: str

    def as_row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Ceilings:
    """What this GPU does at best, measured in the process that measures the kernels.

    Attributes:
        read: bytes per second of a kernel that only reads.
        copy: bytes read and written per second of a copy from device to device.
        flops: float16 operations per second of torch's matrix product (cuBLAS), 8192 in each dimension.
    """

    read: float
    copy: float
    flops: float

    def as_row(self) -> dict[str, Any]:
        return {
            "read_gb_s": round(self.read / 1e9, 1),
            "copy_gb_s": round(self.copy / 1e9, 1),
            "cublas_tflops": round(self.flops / 1e12, 2),
        }


def rotation(bytes_of_one: int, dry: bool) -> int:
    """How many copies of a kernel's weights the calls take turns on: four times the L2 cache, 200 MB at least."""
    if dry:
        return 1
    cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    return max(1, -(-max(4 * cache, LEAST_ROTATION) // bytes_of_one))


def measure(calls: Sequence[Call], dry: bool, longest_s: float = 2.0, graph: bool = True) -> Timing:
    """Time one of `calls`, which do the same work on different memory.

    Args:
        longest_s: fewer than fifty replays, but at least ten, when they would take longer than this.
        graph: False for calls that wait for the GPU, which can not be captured.
    """
    if dry:
        times = []
        for call in calls:
            started = time.perf_counter()
            call()
            times.append((time.perf_counter() - started) * 1e6)
        return _timing(times, "dry run")
    eager_us = _warm_up(calls[:1])
    if eager_us > LONG_US:
        calls = calls[:1]
    elif len(calls) > 1:
        eager_us = _warm_up(calls)
    passes = max(1, -(-LEAST_CALLS // len(calls))) if eager_us < SHORT_US else 1
    captured = _capture(calls, passes) if graph else None
    if captured is None:
        return _replays(lambda: [call() for call in calls], len(calls), eager_us, longest_s, "eager")
    return _replays(captured.replay, len(calls) * passes, eager_us, longest_s, "graph")


def _warm_up(calls: Sequence[Call]) -> float:
    """Run everything twice on a stream of its own, as capture wants it; microseconds of a call, launch included."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.stream(stream):
        for call in calls:
            call()
        start.record()
        for call in calls:
            call()
        end.record()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    return start.elapsed_time(end) * 1e3 / len(calls)


def _capture(calls: Sequence[Call], passes: int) -> torch.cuda.CUDAGraph | None:
    """All calls in one graph; None where one of them does what can not be captured, such as waiting for the GPU."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.stream(torch.cuda.Stream()):
            graph.capture_begin()
            try:
                for call in list(calls) * passes:
                    call()
            finally:
                graph.capture_end()
    except RuntimeError as error:
        if "captur" not in str(error):
            raise
        torch.cuda.synchronize()
        return None
    return graph


def _replays(replay: Callable[[], object], calls: int, call_us: float, longest_s: float, how: str) -> Timing:
    repeats = int(min(REPEATS, max(10, longest_s * 1e6 / (call_us * calls))))
    for _ in range(3):
        replay()
    events = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        replay()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return _timing([start.elapsed_time(end) * 1e3 / calls for start, end in events], how)


def _timing(times: list[float], how: str) -> Timing:
    low, middle, high = (round(value, 3) for value in (min(times), median(times), max(times)))
    return Timing(middle, low, high, len(times), how)


def measure_ceilings(session: "Session") -> Ceilings:
    """Read, copy and multiply; about a second on a fast GPU."""
    dry = session.dry
    with torch.device(session.device):
        return Ceilings(read=_read_rate(dry), copy=_copy_rate(dry), flops=_product_rate(dry))


def _room(dry: bool) -> int:
    """Bytes for a buffer: two gibibytes, or a sixth of what is free."""
    return 1 << 16 if dry else min(READ_BYTES, torch.cuda.mem_get_info()[0] // 6)


def _read_rate(dry: bool) -> float:
    rates = []
    for block, trips in ((1024, 4),) if dry else ((2048, 8), (4096, 16), (8192, 8)):
        programs = _room(dry) // (4 * block * trips)
        source = torch.randint(0, 1 << 30, (programs * block * trips,), dtype=torch.int32)
        sums = torch.empty(programs, dtype=torch.int32)

        def read(
            source: Tensor = source, sums: Tensor = sums, block: int = block, trips: int = trips
        ) -> None:
            _sum_of_reads[(sums.numel(),)](source, sums, BLOCK=block, TRIPS=trips, num_warps=8)

        rates.append(source.nbytes / measure([read], dry).median_us * 1e6)
    return max(rates)


def _copy_rate(dry: bool) -> float:
    source = torch.randint(0, 1 << 30, (_room(dry) // 4,), dtype=torch.int32)
    target = torch.empty_like(source)
    return 2 * source.nbytes / measure([lambda: target.copy_(source)], dry).median_us * 1e6


def _product_rate(dry: bool) -> float:
    size = 64 if dry else PEAK_SIZE
    left, right = (torch.randn(size, size).half() for _ in range(2))
    return 2.0 * size**3 / measure([lambda: left @ right], dry).median_us * 1e6


@triton.jit
def _sum_of_reads(source, sums, BLOCK: tl.constexpr, TRIPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """sums[p] = the sum of the BLOCK · TRIPS integers that program p reads."""
    start = tl.program_id(0).to(tl.int64) * BLOCK * TRIPS
    total = tl.zeros([BLOCK], tl.int32)
    for trip in range(TRIPS):
        total += tl.load(source + start + trip * BLOCK + tl.arange(0, BLOCK))
    tl.store(sums + tl.program_id(0), tl.sum(total))
