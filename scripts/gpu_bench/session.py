"""One stage in a process of its own: runs its cases and writes what each found, line by line.

    python -m scripts.gpu_bench.session MODULE ROWS [--dry-run] [--seconds N] [ARGUMENT ...]

Owns the line format that `stages.py` reads. Every case is announced before it runs and reported after, so that a
crash costs that case only: the parent starts the stage again with the same file, and cases found in it are not
run again. A stage's module has one function, `run(session, *arguments)`; what it measures is its own business.
"""

import argparse
import importlib
import json
import sys
import time
import traceback
import types
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scripts.gpu_bench.timing import Ceilings

Row = dict[str, Any]
CONTEXT_LOST = 75  # exit code: the GPU refuses further work of this process
LOST = ("CUDA error", "illegal memory access", "misaligned address", "unspecified launch failure")
TAIL_LINES = 12


class Session:
    """What a stage's `run` works with.

    Attributes:
        dry: no GPU: the kernels run in Triton's interpreter on tiny shapes and times mean nothing.
        device: where tensors lie; new ones do by default.
    """

    def __init__(self, rows: Path, dry: bool, seconds: float) -> None:
        self.dry = dry
        self.device = "cpu" if dry else "cuda"
        self._deadline = time.monotonic() + seconds
        self._known = {row.get("case", row.get("start")) for row in read_rows(rows)}
        self._file = rows.open("a", encoding="utf-8")

    def case(self, name: str, work: Callable[[], Row]) -> None:
        """Run `work` unless an earlier process did, and keep its row; what it raises is a failure of the case.

        `work` returns a row with its "kind": "check" (with "correct"), "benchmark", "ceiling" or "note".
        """
        if name in self._known:
            return
        self._known.add(name)
        if time.monotonic() > self._deadline:
            self._write({"case": name, "kind": "skipped", "why": "no time left"})
            return
        self._write({"start": name})
        started = time.monotonic()
        row = self._outcome(work)
        if self.dry:
            row = _without_figures(row)
        self._write({"case": name, "seconds": round(time.monotonic() - started, 2), **row})
        if row["kind"] == "failure" and not self.dry and any(sign in row["error"] for sign in LOST):
            sys.exit(CONTEXT_LOST)

    @cached_property
    def ceilings(self) -> "Ceilings":
        """What this GPU reads and multiplies at best, measured once in this process."""
        from scripts.gpu_bench.environment import nvidia_smi
        from scripts.gpu_bench.timing import measure_ceilings

        ceilings = measure_ceilings(self)
        row = {
            "case": "ceilings",
            "kind": "ceiling",
            "figures": ceilings.as_row(),
            "just_after": nvidia_smi(),
        }
        self._write(_without_figures(row) if self.dry else row)
        return ceilings

    def _outcome(self, work: Callable[[], Row]) -> Row:
        import torch

        try:
            row = work()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            return row
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return {"kind": "skipped", "why": "not enough GPU memory"}
        except Exception as error:
            lines = traceback.format_exc().strip().splitlines()
            summary = f"{type(error).__name__}: {error}"
            return {"kind": "failure", "error": summary[:2000], "traceback": lines[-TAIL_LINES:]}

    def _write(self, row: Row) -> None:
        strict = json.loads(json.dumps(row), parse_constant=lambda _: None)  # JSON knows no NaN
        self._file.write(json.dumps(strict) + "\n")
        self._file.flush()


def _without_figures(row: Row) -> Row:
    """What a dry run may tell: a CPU's times say nothing of a GPU."""
    return row | ({"figures": dict.fromkeys(row["figures"])} if "figures" in row else {})


def read_rows(path: Path) -> list[Row]:
    """Lines written so far; a line that a kill cut short is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text("utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _find_own_tests() -> None:
    """Have `import tests` mean this tree's folder, also where some installed package brought one of that name."""
    folder = types.ModuleType("tests")
    folder.__path__ = [str(Path(__file__).parents[2] / "tests")]
    sys.modules["tests"] = folder


def _prepare_interpreter() -> None:
    """What the tests' conftest does to Triton's interpreter, which may be done once a process."""
    import torch

    from tests.kernels.interpreter import mend
    from tests.kernels.interpreter_speed import hasten

    mend()
    hasten()
    torch.set_num_threads(1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run one stage; scripts/gpu_check calls this.")
    parser.add_argument("module")
    parser.add_argument("rows", type=Path)
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--seconds", type=float, default=600.0)
    options = parser.parse_args()

    import torch

    _find_own_tests()
    session = Session(options.rows, options.dry_run, options.seconds)
    torch.manual_seed(0)
    stage = importlib.import_module(options.module)
    if options.dry_run and not hasattr(stage, "CONFTEST"):
        _prepare_interpreter()
    stage.run(session, *options.arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
