"""`Host`: this machine for native kernels: what code is compiled for, where it is kept, and the threads that run it."""

import hashlib
import platform
import threading
from collections.abc import Callable
from pathlib import Path

from llvmlite import ir

from llmcli_kernels.native.compiled import Compiled
from llmcli_kernels.native.kernel import Stage
from llmcli_kernels.native.machine import MACHINES, Machine, machines_here
from llmcli_kernels.native.program import Program, emit_run
from llmcli_kernels.native.team import Team


class Host:
    """Where native kernels run.

    Args:
        cache_folder: of compiled code, or None.
        machine_name: one of MACHINES; None for the best that this processor is.

    Raises:
        RuntimeError: native kernels can not run here.
    """

    def __init__(self, cache_folder: Path | None, machine_name: str | None = None) -> None:
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            raise RuntimeError(f"not for {platform.system()} on {platform.machine()}")
        here = machines_here()
        name = machine_name or next(iter(here), "")
        if name not in here:
            raise RuntimeError(
                f"no {name} here" if name else "the processor has neither AVX-512 VNNI nor AVX2"
            )
        self.machine = MACHINES[name]
        self.team = Team()
        self._cache_folder = cache_folder
        self._source = _source_digest()
        self._compiled: dict[str, Compiled] = {}
        self._compiling = threading.Lock()
        self._run = self.compile("run", lambda module, _: emit_run(module)).address("run")

    def compile(self, variant: str, emit: Callable[[ir.Module, Machine], None]) -> Compiled:
        """The code of a variant, made once; emit(module, machine) adds its functions."""
        with (
            self._compiling
        ):  # code that a second thread compiled anew would be unloaded while the first one runs it
            if variant not in self._compiled:
                self._compiled[variant] = Compiled(
                    self.machine,
                    f"{variant}\n{self._source}",
                    lambda module: emit(module, self.machine),
                    self._cache_folder,
                )
            return self._compiled[variant]

    def run(self, *stages: Stage) -> None:
        """Stages one after the other, once."""
        Program(self, stages).run()

    def call(self, state: int) -> None:
        """Run a program's state on all threads."""
        self.team.call(self._run, state, self.team.num_threads())


def _source_digest() -> str:
    """Of all modules of the package: every change of a generator is another version."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
