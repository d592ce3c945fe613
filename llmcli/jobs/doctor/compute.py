"""What runs a model: torch's build, the GPU and who uses it, and the compiled kernels of both devices.

The facts come from processes of their own (`runtime/self_test.py`, nvidia-smi), as plain values; here they are judged.
"""

import csv
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmcli.config import MIB, human_bytes
from llmcli.errors import quote
from llmcli.gpu_facts import GpuFacts, NoGpu
from llmcli.jobs.doctor.check import Finding, failed, passed, skipped, warned

SMI_LIMIT_S = 10
CARD_FIELDS = ("index", "name", "memory.total", "memory.free", "driver_version", "compute_cap")
USER_FIELDS = ("pid", "process_name", "used_memory")
LARGEST_ERROR = 0.05  # of the largest value; a wrong kernel is off by all of it
BUSY_SHARE = 0.5  # of a GPU's memory: taken by others, it is worth a warning


def gpu_of(facts: Mapping[str, Any]) -> GpuFacts | NoGpu:
    """The GPU in what `self_test.torch_facts` tells."""
    if facts["gpu"] is None:
        return NoGpu(**facts["no_gpu"])
    return GpuFacts(**facts["gpu"] | {"capability": tuple(facts["gpu"]["capability"])})


def check_torch(facts: Mapping[str, Any]) -> Finding:
    """torch can be imported; whether its build suits the GPU is told by `check_gpu`."""
    built = f"built for CUDA {facts['cuda']}" if facts["cuda"] else "built for CPUs"
    found = f"{facts['version']}, {built}; imported in {facts['import_s']:.1f} s"
    gpu = gpu_of(facts)
    driver = (f"driver {gpu.driver}",) if isinstance(gpu, GpuFacts) and gpu.driver else ()
    return passed(found, *driver)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One GPU as the driver tells; memory in bytes, `free` before any model."""

    index: str
    name: str
    total: int
    free: int
    driver: str
    capability: str

    def line(self) -> str:
        memory = f"{human_bytes(self.free)} of {human_bytes(self.total)} free"
        return f"GPU {self.index}: {self.name}, compute capability {self.capability}, {memory}"


@dataclass(frozen=True, slots=True)
class GpuUser:
    """A process that holds memory of a GPU: its number, the program's name without its folder, bytes."""

    pid: str
    program: str
    held: int


def read_cards() -> tuple[list[Card], list[GpuUser]]:
    """What nvidia-smi, which comes with every driver, lists; empty without it."""
    if shutil.which("nvidia-smi") is None:
        return [], []
    cards = [
        Card(
            index=index,
            name=quote(name, 80),
            total=_mebibytes(total),
            free=_mebibytes(free),
            driver=driver,
            capability=capability,
        )
        for index, name, total, free, driver, capability in _smi("--query-gpu", CARD_FIELDS)
    ]
    users = [
        GpuUser(pid, quote(Path(program).name, 80), _mebibytes(held))
        for pid, program, held in _smi("--query-compute-apps", USER_FIELDS)
    ]
    return cards, users


def _smi(query: str, fields: Sequence[str]) -> list[list[str]]:
    command = ["nvidia-smi", f"{query}={','.join(fields)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_LIMIT_S, check=False)
    if done.returncode != 0:
        return []
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return [row for row in rows if len(row) == len(fields)]


def _mebibytes(text: str) -> int:
    """0 for "[N/A]", which is what nvidia-smi says in a container or on shared memory."""
    return int(text) * MIB if text.isdecimal() else 0


def check_gpu(gpu: GpuFacts | NoGpu, cards: Sequence[Card], users: Sequence[GpuUser]) -> Finding:
    """There is a GPU to run on, with most of its memory free; or none, which is fine."""
    details = [card.line() for card in cards]
    details += [f"{user.program} (process {user.pid}) holds {human_bytes(user.held)}" for user in users]
    if isinstance(gpu, NoGpu):
        if gpu.present or cards:
            return warned(
                f"there is one, but it is not used: {gpu.reason}", gpu.fix or "see --device", *details
            )
        return passed(f"none to use, models run on the CPU ({gpu.reason})", *filter(None, (gpu.fix,)))
    free, total = human_bytes(gpu.free_memory), human_bytes(gpu.total_memory)
    capability = f"{gpu.capability[0]}.{gpu.capability[1]}"
    found = f"{gpu.describe()}, compute capability {capability}, {free} of {total} free"
    if gpu.total_memory - gpu.free_memory <= BUSY_SHARE * gpu.total_memory:
        return passed(found, *details)
    largest = max(users, key=lambda user: user.held, default=None)
    who = f"; {largest.program} holds {human_bytes(largest.held)}" if largest else ""
    end = f"end it if it is not needed: kill {largest.pid}" if largest else "see who uses it: nvidia-smi"
    return warned(found + who, end, *details)


def check_gpu_kernels(facts: Mapping[str, Any]) -> Finding:
    """Triton's kernels compile and compute what they should; `facts` are those of `self_test.triton_facts`."""
    if wrong := _wrong(facts["errors"]):
        return failed(
            f"Triton {facts['triton']} computes {wrong} wrong on this GPU",
            "use --device cpu, and please report it: llmcli doctor --report",
        )
    found = f"Triton {facts['triton']}: {len(facts['errors'])} kernels compiled, run and right"
    return passed(f"{found} in {facts['seconds']:.1f} s", f"compiled code is kept in {facts['folder']}")


def check_cpu_kernels(facts: Mapping[str, Any], private: bool) -> Finding:
    """The processor's compiled kernels are right; `facts` are those of `self_test.native_facts`.

    Args:
        private: whether the folder of compiled code can be used: nobody else may write to it.
    """
    names = {"avx512vnni": "AVX-512 VNNI", "avx2": "AVX2"}
    if wrong := _wrong(facts["errors"]):
        return failed(
            f"{wrong} is wrong on this processor",
            "use --kernels torch, and please report it: llmcli doctor --report",
        )
    if facts["trouble"]:
        return warned(
            f"PyTorch's own are used, which are slower: {quote(facts['trouble'], 300)}",
            "pip install --force-reinstall llvmlite",
        )
    if not facts["machines"]:
        return warned(
            "the processor has neither AVX-512 VNNI nor AVX2: PyTorch's own kernels are used",
            "nothing to mend here; a newer processor or a GPU is several times as fast",
        )
    best = names.get(facts["machines"][0], facts["machines"][0])
    found = f"{best}: {len(facts['errors'])} kernels compiled, run and right in {facts['seconds']:.1f} s"
    if facts["folder"] is None:
        return warned(
            f"{found}; without a home folder", "set HOME or XDG_CACHE_HOME: they are compiled at each start"
        )
    if not private:
        return warned(
            f"{found}; others may write to {facts['folder']}, so that nothing is kept there",
            f"chmod go-w {facts['folder']}",
        )
    return passed(found, f"compiled code is kept in {facts['folder']}")


def no_cpu_kernels(system: str, machine: str) -> Finding | None:
    """Why there is nothing to test; None on the machines that native kernels are made for."""
    if (system, machine) == ("Linux", "x86_64"):
        return None
    return skipped(
        f"compiled kernels are for Linux on x86-64, this is {system} on {machine}; PyTorch's own are used"
    )


def is_private(folder: Path, uid: int) -> bool:
    """Whether only its owner, `uid`, may write to a folder; one that is not there yet will be so."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return status.st_uid == uid and not status.st_mode & 0o022


def _wrong(errors: Mapping[str, float]) -> str:
    """The operations that are off, NaN included."""
    return ", ".join(name for name, error in errors.items() if not error <= LARGEST_ERROR)
