"""Prints the memory's read bandwidth for each number of threads, as JSON; a process of its own in every round.

python -m scripts.peers.bandwidth THREADS
"""

import json
import sys

from llmcli.jobs.bench.quick import read_bandwidth
from scripts.peers.meter import Meter


def main() -> None:
    rows = []
    for threads in thread_counts(int(sys.argv[1])):
        meter = Meter()
        rows.append({"threads": threads, "bytes_per_s": read_bandwidth(threads), "meter": meter.stop()})
    print(json.dumps(rows))


def thread_counts(most: int) -> list[int]:
    """1, 2, 4, ... and `most`."""
    return sorted({1 << power for power in range(most.bit_length())} | {most})


if __name__ == "__main__":
    main()
