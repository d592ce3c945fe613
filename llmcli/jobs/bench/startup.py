"""`bench startup`: the time from an empty process to the first token, phase by phase, cold and warm.

Each start is a process of its own (`bench/startup_child.py`), as a user's would be. Cold: the model's files are
dropped from the system's page cache, and kernels are compiled anew, into a folder that is thrown away. Warm: the
files were read and the kernels compiled by the start before. `vllm bench startup` has the same two kinds. Knows no
table and no file of results; reads no environment, it is handed over.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmcli.config import EngineConfig
from llmcli.errors import EngineError, LLMCliError, UsageError, quote
from llmcli.jobs.bench.result import Row

Kind = Literal["cold", "warm"]
CHILD = "llmcli.jobs.bench.startup_child"
# What ends with each phase, in the order of a start; the child tells the moments.
PHASES = {
    "program": "Python is up and llmcli imported",
    "torch": "torch imported",
    "read": "config, tokenizer and memory plan are there",
    "load": "weights, KV cache and kernels are there",
    "first token": "a prompt of 32 tokens has its first token",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupPlan:
    """How many starts of each kind. Names and defaults are vLLM's, but for the number of cold ones (5 there)."""

    num_iters_cold: int = 3
    num_iters_warmup: int = 1
    num_iters_warm: int = 5

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 0:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 0, got {value}")
        if self.num_iters_cold + self.num_iters_warm == 0:
            raise UsageError("there is nothing to measure: --num-iters-cold and --num-iters-warm are 0")


@dataclass(frozen=True, slots=True)
class Start:
    """One start.

    Attributes:
        phases: seconds of each of PHASES.
        environment: what the process says of itself and its engine.
        notice: what could not be made cold; empty where nothing is to be said.
    """

    phases: Mapping[str, float]
    environment: Mapping[str, Any]
    notice: str = ""

    @property
    def total_s(self) -> float:
        return sum(self.phases.values())


@dataclass(frozen=True, slots=True)
class Starter:
    """Starts processes that load a model.

    Attributes:
        model: fields of a LocalModel, ready for JSON.
        environ: of the processes.
    """

    model: Mapping[str, Any]
    config: EngineConfig
    environ: Mapping[str, str]

    def start(self, kind: Kind) -> Start:
        """Start once, and wait for the first token.

        Raises:
            LLMCliError: the model does not load; with the message and the exit code that loading it here would have.
        """
        notice = drop_from_page_cache(Path(self.model["path"])) if kind == "cold" else ""
        if kind == "warm":
            told = self._run(self.environ)
        else:
            with _cold_caches() as caches:
                told = self._run({**self.environ, **caches})
        return Start(phases_of(told["moments"]), told["environment"], notice)

    def _run(self, environ: Mapping[str, str]) -> dict[str, Any]:
        job = {"model": dict(self.model), "config": dataclasses.asdict(self.config)}
        command = [sys.executable, "-P", "-m", CHILD]  # nothing is imported from the working folder
        started = time.monotonic()
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environ),
            text=True,
        ) as process:
            try:
                out, err = process.communicate(json.dumps(job))
            except BaseException:
                process.kill()
                raise
        try:
            told: dict[str, Any] = json.loads(out.splitlines()[-1])
        except (IndexError, ValueError):
            last = err.strip().splitlines()[-1:] or ["it said nothing"]
            raise EngineError(
                f"a start ended with code {process.returncode} and no result", why=quote(last[0])
            ) from None
        if "error" in told:
            raise _ChildError(told["error"])
        told["moments"] = [("start", started), *told["moments"]]
        return told


class _ChildError(LLMCliError):
    """An error that the process reported, as if it had happened here."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        super().__init__(told["what"], why=told["why"], fix=told["fix"])
        self.exit_code = int(told["exit_code"])  # type: ignore[misc]


def phases_of(moments: list[tuple[str, float]]) -> dict[str, float]:
    """Seconds of each phase, from (name, clock reading at its end); the first one is the start."""
    return {name: ended - began for (_, began), (name, ended) in itertools.pairwise(moments)}


@contextlib.contextmanager
def _cold_caches() -> Iterator[dict[str, str]]:
    """Variables that send compiled kernels into an empty folder for a while."""
    with tempfile.TemporaryDirectory(prefix="llmcli-cold-") as folder:
        yield {
            "XDG_CACHE_HOME": folder,
            "TRITON_CACHE_DIR": os.path.join(folder, "triton"),
            "TORCHINDUCTOR_CACHE_DIR": os.path.join(folder, "inductor"),
        }


def drop_from_page_cache(folder: Path) -> str:
    """Ask the system to forget the files of a folder; what is to be said if it can not, else an empty string."""
    if not hasattr(os, "posix_fadvise"):
        return "this system can not drop files from memory: a cold start reads the model from there"
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return ""


def run_startup(
    starter: Starter, plan: StartupPlan, on_run: Callable[[str], None]
) -> Iterator[tuple[Start, list[Row]]]:
    """Measure; after every start come the rows of its kind, with the times so far.

    Raises:
        LLMCliError: the model does not load.
    """
    kinds: tuple[tuple[Kind, int, int], ...] = (
        ("cold", 0, plan.num_iters_cold),
        ("warm", plan.num_iters_warmup, plan.num_iters_warm),
    )
    for kind, num_untimed, num_timed in kinds:
        starts: list[Start] = []
        for number in range(num_untimed if num_timed else 0):
            on_run(f"start before the {kind} ones, {number + 1} of {num_untimed}")
            starter.start(kind)
        for number in range(num_timed):
            on_run(f"{kind} start {number + 1} of {num_timed}")
            starts.append(starter.start(kind))
            yield starts[-1], rows_of(kind, starts)


def rows_of(kind: Kind, starts: list[Start]) -> list[Row]:
    """One row for the whole and one for each phase."""
    rows = [Row(test=f"{kind} start", unit="s", samples=tuple(start.total_s for start in starts))]
    for phase in starts[0].phases:
        samples = tuple(start.phases[phase] for start in starts)
        rows.append(Row(test=f"{kind} start: {phase}", unit="s", samples=samples))
    return rows
