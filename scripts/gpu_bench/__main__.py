"""`scripts/gpu_check`: is what runs on the GPU right, and how fast is it?

    scripts/gpu_check kernels [--dry-run] [--json FILE] [--only STAGE ...] [--minutes N]
    scripts/gpu_check engine  [--dry-run] [--json FILE] [--only STAGE ...] [--minutes N]

Owns the arguments, the order of the stages and the exit code: 0 all that ran is correct (missed targets are told,
they are no failure), 1 something is wrong, 2 wrong usage, 3 no GPU and no --dry-run.
"""

import argparse
import itertools
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from scripts.gpu_bench.report import Report
from scripts.gpu_bench.stage_runner import StageResult, StageRunner
from scripts.gpu_bench.stages import ENVIRONMENT, Stage, engine_stages, kernel_stages

CHECKS: dict[str, Callable[[bool], list[Stage]]] = {"kernels": kernel_stages, "engine": engine_stages}
USUAL_MINUTES = 10.0
RESERVE_S = 15.0
WORKER_MEMORY = 8 << 30  # bytes of the GPU for each stage that runs beside others
MOST_WORKERS = 12


def main() -> int:
    options = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    deadline = started + options.minutes * 60 - RESERVE_S
    with tempfile.TemporaryDirectory(prefix="gpu_check-") as folder:
        runner = StageRunner(options.dry_run, _environment(options.dry_run), Path(folder))
        facts, problem = _look(runner, options.dry_run)
        if problem:
            print(problem, file=sys.stderr)
            return 3
        report = Report(options.check, options.dry_run, facts, options.json)
        say(
            f"{report.machine()}; {'a dry run' if options.dry_run else f'at most {options.minutes:g} minutes'}"
        )
        workers = 1 if options.dry_run else _workers(facts)
        try:
            _run_all(runner, _chosen(options), report, deadline, workers)
        except KeyboardInterrupt:
            say("interrupted; what was measured so far:")
            report.interrupted = True
    report.finish()
    report.print_tables()
    say(f"{report.verdict()} ({time.monotonic() - started:.0f} s)")
    if report.path:
        say(f"written to {report.path}")
    return 130 if report.interrupted else int(not report.correct)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check", description="Check and measure what llmcli runs on a GPU."
    )
    checks = parser.add_subparsers(dest="check", required=True)
    for name, stages in CHECKS.items():
        families = list(dict.fromkeys(stage.family for stage in stages(False)))
        check = checks.add_parser(name, help=f"stages: {', '.join(families)}")
        check.add_argument(
            "--dry-run",
            action="store_true",
            help="no GPU: Triton's interpreter, tiny shapes, times mean nothing",
        )
        check.add_argument(
            "--json",
            type=Path,
            help="where to write; without it benchmarks/gpu-NAME-DATE.json (not in a dry run)",
        )
        check.add_argument(
            "--only", nargs="+", metavar="STAGE", choices=families, help=f"some of: {', '.join(families)}"
        )
        check.add_argument("--minutes", type=_minutes, default=USUAL_MINUTES, help="time for all (10)")
    return parser.parse_args()


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.5 <= value <= 600:
        raise argparse.ArgumentTypeError(f"must be a number of minutes in 0.5..600, got {text!r}")
    return value


def _chosen(options: argparse.Namespace) -> list[Stage]:
    stages = CHECKS[options.check](options.dry_run)
    return [stage for stage in stages if options.only is None or stage.family in options.only]


def _environment(dry: bool) -> dict[str, str]:
    """Variables of the stage processes."""
    own = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    if dry:
        own |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LLMCLI_")}
    if not dry:
        inherited.pop("TRITON_INTERPRET", None)
    return inherited | own


def _look(runner: StageRunner, dry: bool) -> tuple[dict[str, Any], str]:
    """Facts of the machine, or why nothing can run on it."""
    result = runner.run(ENVIRONMENT, ENVIRONMENT.budget_s)
    facts = next((row for row in result.rows if row["kind"] == "note"), None)
    if facts is None:
        reason = result.tail.splitlines()[-1] if result.tail else str(result.rows)
        return {}, f"PyTorch does not work here: {reason}\nInstall it: pip install torch triton transformers"
    facts = {name: value for name, value in facts.items() if name not in ("case", "kind", "seconds")}
    if facts["gpu"] is None and not dry:
        return {}, (
            f"no CUDA GPU is visible to PyTorch {facts['torch']} (built for CUDA: {facts['cuda'] or 'no'})\n"
            "Run this on a machine with a GPU and a CUDA build of PyTorch, or add --dry-run to go through the same"
            " code in Triton's interpreter."
        )
    return facts, ""


def _run_all(
    runner: StageRunner, stages: Sequence[Stage], report: Report, deadline: float, workers: int
) -> None:
    """Stage by stage; neighbours that are not timed run beside each other. Time that one leaves goes to the next."""
    groups = [list(group) for _, group in itertools.groupby(stages, key=_neighbours)]
    budgets = [max(stage.budget_s for stage in group) for group in groups]
    for index, group in enumerate(groups):
        left = deadline - time.monotonic()
        end = time.monotonic() + left * budgets[index] / sum(budgets[index:])
        with ThreadPoolExecutor(workers) as pool:
            try:
                list(pool.map(lambda stage: _run_one(runner, stage, report, end), group))  # noqa: B023
            except KeyboardInterrupt:
                runner.stop()
                raise


def _neighbours(stage: Stage) -> str:
    return stage.name if stage.timed else ""


def _run_one(runner: StageRunner, stage: Stage, report: Report, end: float) -> None:
    seconds = end - time.monotonic()
    if seconds < 2:
        report.add(StageResult(stage.name, status="not run"))
        return
    report.add(runner.run(stage, seconds, report.update))


def _workers(facts: dict[str, Any]) -> int:
    """Stages at a time: compiling takes a core each, tensors and contexts take memory."""
    by_memory = facts["gpu"]["free_bytes"] // WORKER_MEMORY
    return max(1, min(MOST_WORKERS, (os.cpu_count() or 3) - 2, by_memory))


def say(line: str) -> None:
    print(f"gpu_check: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
