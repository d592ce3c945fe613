"""The order of the measurements: A B A B, round by round, each peer once per test in every round.

A machine's speed drifts, so what is compared must have been measured close together: in a round every test goes
through all peers before the next test begins. Knows no peer and no process: it gets them.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from scripts.peers.worker_process import PeerFailed
from scripts.peers.workload import BenchTest, Kind


class Worker(Protocol):
    """A peer with its model loaded; `worker_process.WorkerProcess`, or a fake."""

    versions: dict[str, Any]

    @property
    def alive(self) -> bool: ...

    def measure(self, test: BenchTest) -> dict[str, Any]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """One measurement.

    Attributes:
        round: from 1.
        test: its name, or "start": from starting the process to its model being ready.
        answer: "value" and more, or "error".
    """

    round: int
    peer: str
    test: str
    answer: dict[str, Any]


def run_round(
    number: int,
    tests: Sequence[BenchTest],
    peers: Mapping[str, Sequence[Kind]],
    start: Callable[[str], tuple[Worker, dict[str, Any]]],
) -> Generator[Outcome, None, None]:
    """Start all peers, measure all tests, end all peers. One that fails to start, or dies, is left out from there on.

    Args:
        peers: by name the kinds of tests that they can run, in the order in which they take turns.
        start: starts a peer's worker, returns it with what is worth telling about it.
    """
    workers: dict[str, Worker] = {}
    try:
        for peer in peers:
            try:
                workers[peer], facts = start(peer)
            except PeerFailed as error:
                facts = {"error": str(error)}
            yield Outcome(number, peer, "start", facts)
        for test in tests:
            for peer in peers:
                if peer in workers and test.kind in peers[peer]:
                    yield Outcome(number, peer, test.name, _measure(workers, peer, test))
    finally:
        for worker in workers.values():
            worker.close()


def _measure(workers: dict[str, Worker], peer: str, test: BenchTest) -> dict[str, Any]:
    try:
        return workers[peer].measure(test)
    except PeerFailed as error:
        if not workers[peer].alive:
            workers.pop(peer).close()
        return {"error": str(error)}
