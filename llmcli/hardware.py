"""What this machine offers: memory and cores that this process may use, and what its CPU is fast at.

Read from the operating system on request, never at import. Knows no torch: `engine/build.py` and `show` call it.
"""

import ctypes
import os
import platform
from pathlib import Path

from llmcli.config import HardwareFacts
from llmcli.gpu_facts import GpuFacts, NoGpu

CGROUP = Path("/sys/fs/cgroup")
# By Linux's names; the same that `llmcli_kernels.native.machine` asks for, which can not be imported without llvmlite.
NATIVE_FLAGS = frozenset({"avx2", "f16c", "fma", "bmi2"})
SHOWN_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "BF16",
    "amx_tile": "AMX",
}


def read_hardware_facts(gpu: GpuFacts | NoGpu | None = None) -> HardwareFacts:
    """Look at the machine now; free memory changes from call to call.

    Args:
        gpu: what `runtime/gpu.py` found; None where nobody looked.
    """
    import psutil

    memory, flags = psutil.virtual_memory(), _cpu_flags()
    total, free = memory.total, memory.available
    limit, used = _cgroup_memory()
    if limit is not None:
        total, free = min(total, limit), min(free, limit - used)
    return HardwareFacts(
        total_memory=total,
        free_memory=max(free, 0),
        num_cores=_num_cores(),
        fast_bfloat16=bool({"avx512_bf16", "amx_bf16", "bf16"} & flags),
        native_kernels=_has_native_kernels(flags),
        gpu=gpu or NoGpu("no GPU was looked for"),
    )


def _cgroup_memory() -> tuple[int | None, int]:
    """Limit and use of the container's memory, in bytes; (None, 0) without a limit."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = (CGROUP / "memory.current").read_text().strip()
        cache = 0
        for line in (CGROUP / "memory.stat").read_text().splitlines():
            name, value = line.split()
            if name == "inactive_file":  # page cache that the kernel gives back on demand
                cache = int(value)
        return (None, 0) if limit == "max" else (int(limit), max(0, int(used) - cache))
    except (OSError, ValueError):
        return None, 0


def _num_cores() -> int:
    """Physical cores among those of the affinity mask, no more than the container's quota."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = max(allowed, _cores_of_openmp())
    physical = psutil.cpu_count(logical=False) or allowed
    cores = min(allowed, physical)
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return max(1, cores)


def _cores_of_openmp() -> int:
    """What OpenMP found when it was loaded, 0 without it: with OMP_PROC_BIND it binds the main thread to one core."""
    try:
        return int(ctypes.CDLL(None).omp_get_num_procs())
    except (AttributeError, OSError, TypeError):  # not loaded; or Windows, which has no such namespace
        return 0


def _cpu_flags() -> set[str]:
    """What Linux says that the CPU can do; empty elsewhere."""
    if platform.system() != "Linux":
        return set()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())


def cpu_name() -> str:
    """The processor's name, and the vector extensions that matter here."""
    flags = _cpu_flags()
    found = ", ".join(shown for flag, shown in SHOWN_FLAGS.items() if flag in flags)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(names, platform.processor() or platform.machine())
    return f"{name} ({found})" if found else name


def _has_native_kernels(flags: set[str]) -> bool:
    """Whether `llmcli_kernels.native` can run: on Linux, with AVX2 or better."""
    return platform.machine() == "x86_64" and flags >= NATIVE_FLAGS
