"""The result of a check: a JSON file that is rewritten as results come in, and tables on stdout.

Owns the form of both. Does not know how anything is measured. Calls may come from several threads.
"""

import json
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.gpu_bench.engine_targets import ENGINE_TARGETS
from scripts.gpu_bench.session import Row
from scripts.gpu_bench.stage_runner import StageResult
from scripts.gpu_bench.stages import ROOT
from scripts.gpu_bench.targets import MEANT_FOR, TARGETS, TIME_US, Verdict, judge

TARGETS_OF = {"kernels": TARGETS, "engine": ENGINE_TARGETS}
REWRITE_S = 10.0
PROGRESS_S = 10.0
FAILURES_SHOWN = 5
BROKEN_LINES = 3
INCOMPLETE = {
    ("stopped", "not run"): "not enough time for all of (--minutes gives more)",
    ("broken", "given up"): "not to its end",
}
PLAIN_SUCCESS = {"case", "kind", "seconds", "correct"}  # a case that has no more than this to tell


class Report:
    """What a check found so far.

    Args:
        check: name of the check.
        dry: times are none.
        facts: of the machine, from the first stage.
        path: where to write; None chooses benchmarks/gpu-NAME-DATE.json, or nothing in a dry run.
    """

    def __init__(self, check: str, dry: bool, facts: dict[str, Any], path: Path | None) -> None:
        self.path = path or (None if dry else _usual_path(check, facts["gpu"]["name"]))
        self._targets = TARGETS_OF[check]
        self.interrupted = False
        self._dry = dry
        self._facts = facts
        self._head = {
            "check": check,
            "dry_run": dry,
            "commit": _commit(),
            "started": _now(),
            "command": " ".join(sys.argv[1:]),
        }
        self._stages: dict[str, StageResult] = {}
        self._finished = ""
        self._lock = threading.Lock()
        self._written = 0.0
        self._told = time.monotonic()

    def update(self, result: StageResult) -> None:
        """Take in what an unfinished stage has; now and then tell and write it."""
        now = time.monotonic()
        with self._lock:
            self._stages[result.name] = result
            if now - self._written > REWRITE_S:
                self._write()
            if now - self._told > PROGRESS_S:
                self._told = now
                print(f"    {result.name}: {_progress(result)}", file=sys.stderr, flush=True)

    def add(self, result: StageResult) -> None:
        """Take in a stage that is done, and tell on stderr how it went."""
        with self._lock:
            self._stages[result.name] = result
            self._write()
        print(_stage_line(result), file=sys.stderr, flush=True)
        wrong = _wrong(result.rows)
        for row in wrong[:FAILURES_SHOWN]:
            print(f"    {_failure_line(row)}", file=sys.stderr, flush=True)
        if len(wrong) > FAILURES_SHOWN:
            print(f"    and {len(wrong) - FAILURES_SHOWN} more", file=sys.stderr, flush=True)
        if result.status == "broken":
            print(_indented(result.tail.splitlines()[-BROKEN_LINES:]), file=sys.stderr, flush=True)

    def finish(self) -> None:
        with self._lock:
            self._finished = "" if self.interrupted else _now()
            self._write()

    @property
    def correct(self) -> bool:
        """No case was wrong, raised, hung or killed its process, and no stage failed to start."""
        broken = any(result.status == "broken" for result in self._stages.values())
        return not broken and not _wrong(self._rows())

    def machine(self) -> str:
        gpu = self._facts["gpu"]
        name = f"{gpu['name']} ({gpu['capability']}, {gpu['num_sms']} SMs)" if gpu else "no GPU"
        triton = self._facts["versions"].get("triton", "missing")
        return f"{name}, torch {self._facts['torch']}, Triton {triton}"

    def verdict(self) -> str:
        """One line: how much is right, and how much did not run."""
        rows = self._rows()
        wrong = len(_wrong(rows))
        skipped = sum(row["kind"] == "skipped" for row in rows)
        good = sum(row["kind"] in ("check", "benchmark") for row in rows) - sum(
            row["kind"] == "check" and not row["correct"] for row in rows
        )
        text = f"{good} cases right, {wrong} wrong, {skipped} not run"
        for statuses, why in INCOMPLETE.items():
            cut = [name for name, result in self._stages.items() if result.status in statuses]
            text += f"; {why}: {', '.join(cut)}" if cut else ""
        return text

    def print_tables(self) -> None:
        """Benchmarks, then the targets, on stdout."""
        rows = self._rows()
        for row in [row for row in rows if row["kind"] == "ceiling"][: not self._dry]:
            figures = row["figures"]
            print(
                f"read {figures['read_gb_s']:,.0f} GB/s · copy {figures['copy_gb_s']:,.0f} GB/s"
                f" · cuBLAS {figures['cublas_tflops']:,.1f} TFLOP/s"
            )
        for row in rows:
            if row["kind"] == "benchmark":
                print(_benchmark_line(row))
        print()
        print(f"targets, made for an {MEANT_FOR}" + (" (a dry run measures nothing)" if self._dry else ""))
        for verdict in judge(rows, self._targets):
            print(_verdict_line(verdict))

    def _rows(self) -> list[Row]:
        return [row for result in self._stages.values() for row in result.rows]

    def _write(self) -> None:
        self._written = time.monotonic()
        if self.path is None:
            return
        rows = self._rows()
        document = {
            **self._head,
            "finished": self._finished,
            "environment": self._facts,
            "correct": self.correct,
            "stages": [result.as_row() for result in self._stages.values()],
            "targets": [verdict.as_row() for verdict in judge(rows, self._targets)],
            "cases": [
                {"stage": name, **row}
                for name, result in self._stages.items()
                for row in result.rows
                if not (row.get("correct") and row.keys() <= PLAIN_SUCCESS)  # "stages" counts these
            ],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self.path.with_suffix(".part")
        whole.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        whole.replace(self.path)


def _usual_path(check: str, gpu: str) -> Path:
    name = re.sub(r"[^a-z0-9]+", "-", gpu.lower().removeprefix("nvidia")).strip("-")
    what = "gpu" if check == "kernels" else f"gpu-{check}"
    return ROOT / "benchmarks" / f"{what}-{name}-{datetime.now(UTC):%Y-%m-%d}.json"


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


def _wrong(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["kind"] == "failure" or row.get("correct") is False]


def _stage_line(result: StageResult) -> str:
    counts = result.as_row()["cases"]
    wrong = len(_wrong(result.rows))
    parts = [f"{sum(counts.values())} cases", f"{wrong} wrong" if wrong else ""]
    parts += [f"{counts['skipped']} not run" if counts["skipped"] else ""]
    status = "" if result.status == "ok" else f" [{result.status}]"
    return f"  {result.name:28s} {result.seconds:6.1f} s  {', '.join(filter(None, parts))}{status}"


def _progress(result: StageResult) -> str:
    last = result.rows[-1]["case"] if result.rows else "starting"
    return f"{len(result.rows)} cases after {result.seconds:.0f} s, the last {last}"


def _failure_line(row: Row) -> str:
    why = (
        row.get("error")
        or row.get("note")
        or f"relative error {row.get('relative_error')}, bound {row.get('bound')}"
    )
    tail = f" | {row['stderr_tail'].splitlines()[-1]}" if row.get("stderr_tail") else ""
    return f"wrong: {row['case']}: {str(why).splitlines()[0][:300]}{tail}"


def _indented(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _benchmark_line(row: Row) -> str:
    timing = row["time"]
    if timing["how"] == "dry run":
        return f"{row['case']:56s} {timing['median_us'] / 1e6:6.2f} s in the interpreter (dry run)"
    spread = f"{timing['min_us']:.1f}..{timing['max_us']:.1f}"
    figures = "  ".join(f"{value:.2f} {name}" for name, value in row["figures"].items() if name != TIME_US)
    how = "" if timing["how"] == "graph" else f" ({timing['how']})"
    return f"{row['case']:56s} {timing['median_us']:10.1f} µs {spread:>20s}{how}  {figures}"


def _verdict_line(verdict: Verdict) -> str:
    target = verdict.target
    bound = f"{'≤' if target.at_most else '≥'} {target.bound:g} {target.figure}"
    if verdict.met is None:
        state = "not measured"
    elif verdict.met:
        state = f"met in all {verdict.cases}: {verdict.worst:.2f} at {verdict.case}"
    else:
        state = (
            f"missed by {verdict.short_by:.0%}: {verdict.worst:.2f} at {verdict.case}"
            f" (met in {verdict.cases_met} of {verdict.cases})"
        )
    return f"{target.operation:18s} {bound:42s} {target.says:52s} {state}"
