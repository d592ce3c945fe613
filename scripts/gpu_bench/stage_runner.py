"""Runs a stage in processes of its own, so that a crash loses no other result.

Owns what happens when a process dies: the case that it was in is written down with the end of its stderr, and the
stage goes on behind that case in a new process. Knows no stage. Imports no torch.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.gpu_bench.session import CONTEXT_LOST, Row, read_rows
from scripts.gpu_bench.stages import ROOT, Stage

RESTARTS = 6  # of one stage, each after a case that killed its process
POLL_S = 0.1
STARTUP_S = 120.0  # without a first case: libraries are imported, kernels may be compiled
TAIL_BYTES = 3000
OUT_OF_TIME = "its time was over"


@dataclass
class StageResult:
    """What a stage left behind.

    Attributes:
        status: "ok"; "crashed" (cases killed their process), "stopped" (its time was over), "broken" (it died
            outside of any case), "given up" (too many cases killed it), "not run".
        rows: one for each case, see `session.py`.
        tail: the end of stderr, where the status is no good one.
    """

    name: str
    status: str = "ok"
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    tail: str = ""

    def as_row(self) -> dict[str, Any]:
        kinds = Counter(row["kind"] for row in self.rows)
        facts = {"name": self.name, "status": self.status, "seconds": round(self.seconds, 1), "cases": kinds}
        return facts | ({"stderr_tail": self.tail} if self.tail else {})


OnRows = Callable[[StageResult], None]


class StageRunner:
    """Runs stages; one instance a check.

    Args:
        dry: see `Session`.
        environment: variables of the stage processes.
        folder: where their rows and stderr go; a temporary one.
    """

    def __init__(self, dry: bool, environment: dict[str, str], folder: Path) -> None:
        self._dry = dry
        self._environment = environment
        self._folder = folder
        self._stop = threading.Event()

    def stop(self) -> None:
        """End what runs in other threads; their `run` comes back with what is there."""
        self._stop.set()

    def run(self, stage: Stage, seconds: float, on_rows: OnRows | None = None) -> StageResult:
        """Run a stage to its end, or for `seconds`; `on_rows` gets what is there whenever a case is done."""
        process = _StageProcess(stage, self._folder / f"{stage.name.replace(':', '-')}.jsonl")
        result = StageResult(stage.name)
        started = time.monotonic()

        def refresh() -> None:
            result.rows, result.seconds = process.finished(), time.monotonic() - started

        def tell() -> None:
            refresh()
            if on_rows is not None:
                on_rows(result)

        for _ in range(RESTARTS + 1):
            left = seconds - (time.monotonic() - started)
            ended = process.run(
                self._command(stage, process.rows, left), self._environment, left, tell, self._stop
            )
            if ended != "ok":
                result.status, result.tail = ended, process.tail()
            if ended != "crashed":
                break
        else:
            result.status = "given up"
        refresh()
        return result

    def _command(self, stage: Stage, rows: Path, seconds: float) -> list[str]:
        """The stage gets a second less, so that it can end by itself between two cases."""
        options = ["--seconds", f"{max(1.0, seconds - 1):.1f}", *(["--dry-run"] if self._dry else [])]
        return [
            *(sys.executable, "-m", "scripts.gpu_bench.session"),
            *options,
            *(stage.module, str(rows), *stage.arguments),
        ]


class _StageProcess:
    """The processes of one stage, one after the other, and the file that they share."""

    def __init__(self, stage: Stage, rows: Path) -> None:
        self.stage = stage
        self.rows = rows
        self._stderr = rows.with_suffix(".stderr")

    def run(
        self,
        command: list[str],
        environment: dict[str, str],
        seconds: float,
        tell: Callable[[], None],
        stop: threading.Event,
    ) -> str:
        """One process; how it ended: a status of `StageResult`."""
        with self._stderr.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                cut_short = self._watch(process, seconds, tell, stop)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return self._ended(process.returncode, cut_short)

    def finished(self) -> list[Row]:
        return [row for row in read_rows(self.rows) if "case" in row]

    def tail(self) -> str:
        """The end of the last process's stderr."""
        text = self._stderr.read_bytes()[-TAIL_BYTES:]
        return text.decode("utf-8", "replace").strip()

    def _watch(
        self,
        process: "subprocess.Popen[bytes]",
        seconds: float,
        tell: Callable[[], None],
        stop: threading.Event,
    ) -> str:
        """Wait for the process; why it has to be cut short, or "" when it ended by itself."""
        started = heard = time.monotonic()
        size, limit = self._size(), STARTUP_S
        while process.poll() is None:
            time.sleep(POLL_S)
            now = time.monotonic()
            if self._size() != size:
                size, heard, limit = self._size(), now, self.stage.silence_s
                tell()
            if now - started > seconds or stop.is_set():
                return OUT_OF_TIME
            if now - heard > limit:
                return f"no answer for {limit:.0f} s: it hangs"
        return ""

    def _size(self) -> int:
        return self.rows.stat().st_size if self.rows.exists() else 0

    def _ended(self, code: int, cut_short: str) -> str:
        """Write down what became of the case that was open, and say how to go on."""
        if code == 0 and not cut_short:
            return "ok"
        if code == CONTEXT_LOST:
            return "crashed"  # the process wrote the row itself
        case = self._open_case()
        if cut_short == OUT_OF_TIME:
            if case is not None:
                self._append({"case": case, "kind": "skipped", "why": OUT_OF_TIME})
            return "stopped"
        if case is None:
            return "broken"
        signal_name = signal.Signals(-code).name if code < 0 else ""
        why = cut_short or f"its process ended with {signal_name or f'exit code {code}'}"
        self._append({"case": case, "kind": "failure", "error": why, "stderr_tail": self.tail()})
        return "crashed"

    def _open_case(self) -> str | None:
        """The case that was announced last and never reported."""
        rows = read_rows(self.rows)
        done = {row["case"] for row in rows if "case" in row}
        started = [row["start"] for row in rows if "start" in row and row["start"] not in done]
        return started[-1] if started else None

    def _append(self, row: Row) -> None:
        with self.rows.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(row) + "\n")  # the line before may have been cut short
