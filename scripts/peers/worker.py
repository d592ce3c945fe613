"""The child process of one peer: loads a model, then measures what it is told to, a line of JSON each way.

    python -m scripts.peers.worker PEER MODEL --work DIR --threads N

Runs in the peer's own environment, so it imports the standard library only; `worker_process.py` starts it. The first
line that it writes is {"ready": versions}; then each line read is a test, and each line written its figures or
{"error": why}.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from scripts.peers.measure import Measured
from scripts.peers.meter import Meter
from scripts.peers.peers import PEERS
from scripts.peers.place import Place
from scripts.peers.workload import MODELS, BenchTest


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure one peer; started by scripts/bench_peers.")
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()

    # Libraries print; what they print goes to the log, and stdout is for answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    loaded = PEERS[args.peer].load(Place(args.work), MODELS[args.model], args.threads)
    print(json.dumps({"ready": loaded.versions}), file=answers, flush=True)
    serve(loaded.measure, sys.stdin, answers)


def serve(measure: Callable[[BenchTest], Measured], tests: Iterable[str], answers: TextIO) -> None:
    """Answer every line of `tests`; a test that fails is answered with its error, and the next one is tried."""
    for line in tests:
        meter = Meter()
        try:
            measured = measure(BenchTest(**json.loads(line)))
            answer = asdict(measured) | {"meter": meter.stop()}
        except Exception as error:
            print(f"{line.strip()}: {error!r}", file=sys.stderr)
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
