"""The processor: its threads against the limits of the process, OpenMP's variables, and memory."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmcli.config import GIB, MIB, human_bytes
from llmcli.errors import quote
from llmcli.hardware import cpu_name, read_hardware_facts
from llmcli.jobs.doctor.check import Finding, failed, passed, warned

LEAST_MEMORY = 256 * MIB  # what the bundled model takes, and a little
LITTLE_MEMORY = 2 * GIB  # below this, few models fit
MUCH_SWAP = 0.5
SYSTEM = Path("/sys")
CPU_QUOTA_V1 = Path("fs/cgroup/cpu")
MEMORY_LIMIT_V1 = Path("fs/cgroup/memory/memory.limit_in_bytes")
HUGE_PAGES = Path("kernel/mm/transparent_hugepage/enabled")


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadFacts:
    """How many threads there can be, and who says so.

    Attributes:
        logical, physical: cores of the machine.
        allowed: of the process's affinity.
        used: threads that llmcli takes for a large model.
        old_quota: cores that a cgroup of version 1 grants; None without such a limit.
        processor: its name and what it can do.
        environment: OMP_* variables and LLMCLI_THREADS, those that are set.
    """

    logical: int
    physical: int
    allowed: int
    used: int
    old_quota: float | None
    processor: str
    environment: Mapping[str, str]


def read_threads(environment: Mapping[str, str], system: Path = SYSTEM) -> ThreadFacts:
    """Look at the system; `environment` is the process's."""
    import psutil

    logical = psutil.cpu_count() or 1
    names = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "LLMCLI_THREADS")
    return ThreadFacts(
        logical=logical,
        physical=psutil.cpu_count(logical=False) or logical,
        allowed=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical,
        used=read_hardware_facts().num_cores,
        old_quota=_old_quota(system / CPU_QUOTA_V1),
        processor=cpu_name(),
        environment={name: environment[name] for name in names if environment.get(name)},
    )


def check_threads(facts: ThreadFacts) -> Finding:
    """Nobody asks for more threads than there are cores, and no variable does what its owner does not expect."""
    env = facts.environment
    of = f"of {facts.physical} cores" + (
        f" ({facts.logical} threads)" if facts.logical > facts.physical else ""
    )
    found = f"{facts.used} {of}" + (f", {facts.allowed} of them allowed" * (facts.allowed < facts.logical))
    details = [facts.processor, *(f"{name}={quote(value, 80)}" for name, value in env.items())]
    if facts.old_quota is not None and facts.old_quota < facts.used:
        cores = max(1, round(facts.old_quota))
        return warned(
            f"{found}; the container (cgroup v1) grants {facts.old_quota:g}",
            f"add --threads {cores}, or set LLMCLI_THREADS={cores}: more threads than cores wait for each other",
            *details,
        )
    if (asked := _count(env.get("LLMCLI_THREADS"))) and asked > facts.used:
        return warned(
            f"{found}; LLMCLI_THREADS={asked} is more",
            f"set LLMCLI_THREADS={facts.used}, or unset it",
            *details,
        )
    if (limit := _count(env.get("OMP_THREAD_LIMIT"))) and limit < facts.used:
        return warned(f"{found}; OMP_THREAD_LIMIT={limit} allows fewer", "unset OMP_THREAD_LIMIT", *details)
    omp = env.get("OMP_NUM_THREADS")
    asked_for = None if omp is None else _count(omp.split(",")[0])
    if omp is not None and asked_for is None:
        return warned(
            f"{found}; OMP_NUM_THREADS={quote(omp, 40)} is no number of threads",
            "unset OMP_NUM_THREADS: OpenMP may refuse to start",
            *details,
        )
    if omp is not None and "LLMCLI_THREADS" not in env and asked_for != facts.used:
        return warned(
            f"{found}; OMP_NUM_THREADS={quote(omp, 40)} does not count for llmcli, which sets its own number",
            f"to limit it add --threads {asked_for}, or set LLMCLI_THREADS={asked_for}; else unset OMP_NUM_THREADS",
            *details,
        )
    return passed(found, *details)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFacts:
    """Bytes.

    Attributes:
        total, free: of the machine or its container.
        machine: of the whole machine.
        old_limit: of a cgroup of version 1, which llmcli does not count in; None without one.
        address_limit: of the process (ulimit -v); None without one.
        huge_pages: what Linux says of transparent huge pages, such as "always [madvise] never"; or empty.
    """

    total: int
    free: int
    machine: int
    swap_total: int
    swap_used: int
    old_limit: int | None
    address_limit: int | None
    huge_pages: str


def read_memory(system: Path = SYSTEM) -> MemoryFacts:
    """Look at the system now."""
    import psutil

    hardware, machine, swap = read_hardware_facts(), psutil.virtual_memory().total, psutil.swap_memory()
    old_limit = _number(system / MEMORY_LIMIT_V1)
    return MemoryFacts(
        total=hardware.total_memory,
        free=hardware.free_memory,
        machine=machine,
        swap_total=swap.total,
        swap_used=swap.used,
        old_limit=old_limit if old_limit is not None and old_limit < machine else None,
        address_limit=_address_limit(),
        huge_pages=_text(system / HUGE_PAGES),
    )


def check_memory(facts: MemoryFacts) -> Finding:
    """There is memory for a model, and no limit that llmcli does not see."""
    container = f" (container; the machine has {human_bytes(facts.machine)})" * (facts.total < facts.machine)
    swap = f"swap {human_bytes(facts.swap_used)} of {human_bytes(facts.swap_total)} used"
    found = f"{human_bytes(facts.free)} of {human_bytes(facts.total)} free{container}"
    details = [swap if facts.swap_total else "no swap"]
    if facts.huge_pages:
        details.append(f"huge pages: {facts.huge_pages}")
    close = "close other programs: `ps aux --sort=-rss | head` shows the largest"
    if facts.free < LEAST_MEMORY:
        return failed(f"only {found}", close, *details)
    if facts.old_limit is not None and facts.old_limit < facts.free:
        return warned(
            f"{found}, but the container (cgroup v1) allows {human_bytes(facts.old_limit)}",
            f"llmcli does not see this limit: add --kv-cache-memory, at most {human_bytes(facts.old_limit // 2)}",
            *details,
        )
    if facts.address_limit is not None and facts.address_limit < facts.total:
        return warned(
            f"{found}, but the process may map {human_bytes(facts.address_limit)} only",
            "ulimit -v unlimited",
            *details,
        )
    if facts.free < LITTLE_MEMORY:
        return warned(f"only {found}", close, *details)
    if facts.swap_total and facts.swap_used > MUCH_SWAP * facts.swap_total:
        return warned(
            f"{found}; {swap}", "memory is short at times, and a model in swap crawls: " + close, *details
        )
    if "[never]" in facts.huge_pages:
        return warned(
            f"{found}; huge pages are switched off",
            f"weights are read faster with them: echo madvise | sudo tee {SYSTEM / HUGE_PAGES}",
            *details,
        )
    return passed(found, *details)


def _address_limit() -> int | None:
    """RLIMIT_AS in bytes, where the system has it and it is set."""
    try:
        import resource
    except ImportError:  # not on every system
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def _old_quota(folder: Path) -> float | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.removeprefix("-").isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text("ascii", "replace").strip()
    except OSError:
        return ""


def _count(text: str | None) -> int | None:
    """A positive number, or None for anything else."""
    return int(text) if text and text.strip().isdecimal() and int(text) > 0 else None
