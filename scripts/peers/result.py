"""What becomes of the measurements: one JSON document, written again after each of them.

Owns its form; `summary.py` computes, `tables.py` prints it.
"""

import json
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmcli import __version__
from llmcli.hardware import cpu_name, read_hardware_facts
from scripts.peers.peers import PEERS
from scripts.peers.place import ROOT, Place
from scripts.peers.rounds import Outcome
from scripts.peers.summary import OURS, Spread, is_disturbed, ratio, share_of_bandwidth, spread
from scripts.peers.workload import BenchTest, Model

ONE_SEQUENCE = "decode-1"


@dataclass(slots=True)
class _ModelRecord:
    shape: str
    left_out: dict[str, str] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    bandwidth: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


class Result:
    """One run of `scripts/bench_peers`.

    Args:
        path: where to write; None writes nothing.
        place: its folders are taken out of every text that is kept.
        options: of the command line.
    """

    def __init__(
        self, path: Path | None, place: Place, options: dict[str, Any], tests: Sequence[BenchTest]
    ) -> None:
        self._path = path
        self._place = place
        self._tests = tests
        self._models: dict[str, _ModelRecord] = {}
        self._finished: str | None = None
        self._head = {
            "command": "scripts/bench_peers",
            "date": _now(),
            "commit": _commit(),
            "environment": _machine(),
            "options": options,
            "tests": {test.name: asdict(test) | {"unit": test.unit} for test in tests},
            "peers": {name: peer.title for name, peer in PEERS.items()},
        }

    def add_model(self, model: Model) -> None:
        self._models[model.name] = _ModelRecord(model.shape)

    def leave_out(self, model: Model, peer: str, reason: str) -> None:
        self._models[model.name].left_out[peer] = self._place.portable(reason)

    def add_bandwidth(self, model: Model, round_number: int, rows: list[dict[str, Any]]) -> None:
        self._models[model.name].bandwidth += [{"round": round_number, **row} for row in rows]

    def add(self, model: Model, outcome: Outcome) -> None:
        answer, record = dict(outcome.answer), self._models[model.name]
        if "error" in answer:
            answer["error"] = self._place.portable(answer["error"])
        if "versions" in answer:
            record.versions[outcome.peer] = answer.pop("versions")
        record.outcomes.append(Outcome(outcome.round, outcome.peer, outcome.test, answer))
        self._write()

    def finish(self) -> None:
        self._finished = _now()
        self._write()

    def document(self) -> dict[str, Any]:
        """JSON-ready: what was run where, and for each model every figure, their medians and the ratios."""
        models = {name: self._model(record) for name, record in self._models.items()}
        return {**self._head, "finished": self._finished, "models": models}

    def _model(self, record: _ModelRecord) -> dict[str, Any]:
        return {
            "shape": record.shape,
            "left_out": record.left_out,
            "versions": record.versions,
            "medians": self._table(record.outcomes, spread),
            "ratios": self._table(record.outcomes, ratio),
            "share_of_read_bandwidth": _share(record),
            "read_bandwidth": record.bandwidth,
            "measurements": [_row(outcome) for outcome in record.outcomes],
        }

    def _table(
        self, outcomes: list[Outcome], figure: Callable[[Sequence[Outcome], str, str], Spread | None]
    ) -> dict[str, dict[str, dict[str, float]]]:
        """By test and peer."""
        found = {
            test.name: {peer: figure(outcomes, peer, test.name) for peer in PEERS} for test in self._tests
        }
        return {
            test: {peer: each.as_dict() for peer, each in row.items() if each is not None}
            for test, row in found.items()
        }

    def _write(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._path.with_suffix(".part")
        whole.write_text(json.dumps(self.document(), indent=1) + "\n", encoding="utf-8")
        whole.replace(self._path)


def usual_path() -> Path:
    return ROOT / "benchmarks" / f"cpu-peers-{datetime.now(UTC):%Y-%m-%d}.json"


def _row(outcome: Outcome) -> dict[str, Any]:
    where = {"round": outcome.round, "peer": outcome.peer, "test": outcome.test}
    return {**where, **outcome.answer, "disturbed": is_disturbed(outcome.answer)}


def _share(record: _ModelRecord) -> dict[str, float] | None:
    bytes_per_step = record.versions.get(OURS, {}).get("bytes_per_step", 0)
    share = share_of_bandwidth(record.outcomes, ONE_SEQUENCE, bytes_per_step)
    return share.as_dict() if share else None


def _machine() -> dict[str, Any]:
    hardware = read_hardware_facts()
    return {
        "llmcli": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": hardware.num_cores,
        "memory_bytes": hardware.total_memory,
    }


def _commit() -> str | None:
    """Of this tree, with a + where it has changes; None outside of a repository."""
    try:
        command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
