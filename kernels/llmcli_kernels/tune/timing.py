"""Times kernels on the current GPU: a captured graph, replayed, so that launching costs nothing.

The calls of one measurement work on different copies of the data, which together are larger than the GPU's cache,
as the layers of a model are.
"""

import statistics
from collections.abc import Callable, Sequence

import torch

REPEATS = 15
ROTATED_BYTES = 256 << 20  # several times the largest level-2 cache


def num_copies(num_bytes: int) -> int:
    """How many copies of data make ROTATED_BYTES: 1 to 64."""
    return max(1, min(64, -(-ROTATED_BYTES // max(num_bytes, 1))))


def graph_seconds(calls: Sequence[Callable[[], object]]) -> float:
    """Median seconds of one call. The calls must have been compiled, and synchronize nothing."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    times = []
    for _ in range(REPEATS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return float(statistics.median(times)) / len(calls)
