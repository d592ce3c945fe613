"""Threads and memory against the limits that processes and containers have."""

import os
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from llmcli.config import GIB, MIB
from llmcli.jobs.doctor.processor import (
    MemoryFacts,
    ThreadFacts,
    check_memory,
    check_threads,
    read_memory,
    read_threads,
)

THREADS = ThreadFacts(
    logical=16, physical=8, allowed=16, used=8, old_quota=None, processor="EPYC (AVX2)", environment={}
)
MEMORY = MemoryFacts(
    total=16 * GIB,
    free=12 * GIB,
    machine=16 * GIB,
    swap_total=4 * GIB,
    swap_used=0,
    old_limit=None,
    address_limit=None,
    huge_pages="always [madvise] never",
)


def test_all_cores_pass() -> None:
    assert (check_threads(THREADS).status, check_threads(THREADS).found) == (
        "pass",
        "8 of 8 cores (16 threads)",
    )


def test_an_affinity_is_told() -> None:
    assert check_threads(replace(THREADS, allowed=4, used=4)).found == (
        "4 of 8 cores (16 threads), 4 of them allowed"
    )


@pytest.mark.parametrize(
    ("environment", "found", "fix"),
    [
        ({"OMP_NUM_THREADS": "1"}, "OMP_NUM_THREADS=1 does not count", "--threads 1"),
        ({"OMP_NUM_THREADS": "many"}, "OMP_NUM_THREADS=many is no number", "unset OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "0"}, "OMP_NUM_THREADS=0 is no number", "unset OMP_NUM_THREADS"),
        ({"LLMCLI_THREADS": "32"}, "LLMCLI_THREADS=32 is more", "LLMCLI_THREADS=8"),
        ({"OMP_THREAD_LIMIT": "2"}, "OMP_THREAD_LIMIT=2 allows fewer", "unset OMP_THREAD_LIMIT"),
    ],
)
def test_a_variable_that_does_not_do_what_it_seems_to_is_a_warning(
    environment: dict[str, str], found: str, fix: str
) -> None:
    finding = check_threads(replace(THREADS, environment=environment))
    assert finding.status == "warn"
    assert found in finding.found
    assert fix in finding.fix


@pytest.mark.parametrize(
    "environment",
    [{"OMP_NUM_THREADS": "8"}, {"OMP_NUM_THREADS": "1", "LLMCLI_THREADS": "1"}, {"OMP_NUM_THREADS": "8,2"}],
)
def test_a_variable_that_agrees_passes_and_is_shown(environment: dict[str, str]) -> None:
    finding = check_threads(replace(THREADS, environment=environment))
    assert finding.status == "pass"
    assert finding.details == ("EPYC (AVX2)", *(f"{name}={value}" for name, value in environment.items()))


def test_a_quota_of_an_old_kind_of_container_is_a_warning_with_the_option() -> None:
    finding = check_threads(replace(THREADS, old_quota=1.5))
    assert finding.status == "warn"
    assert "--threads 2" in finding.fix


def test_a_quota_of_version_1_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "fs" / "cgroup" / "cpu"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("150000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert read_threads({}, tmp_path).old_quota == 1.5
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert read_threads({}, tmp_path).old_quota is None


def test_the_threads_of_this_machine_are_read(tmp_path: Path) -> None:
    facts = read_threads({"OMP_NUM_THREADS": "3", "HOME": "/x", "LLMCLI_THREADS": ""}, tmp_path)
    assert (facts.logical, facts.allowed) == (psutil.cpu_count(), len(os.sched_getaffinity(0)))
    assert facts.environment == {"OMP_NUM_THREADS": "3"}


def test_enough_memory_passes() -> None:
    finding = check_memory(MEMORY)
    assert (finding.status, finding.found) == ("pass", "12.0 GiB of 16.0 GiB free")
    assert "swap 0 B of 4.0 GiB used" in finding.details


@pytest.mark.parametrize(
    ("change", "status", "found"),
    [
        ({"free": 100 * MIB}, "fail", "only 100 MiB"),
        ({"free": GIB}, "warn", "only 1.0 GiB"),
        ({"total": 8 * GIB, "free": 6 * GIB}, "pass", "(container; the machine has 16.0 GiB)"),
        ({"old_limit": 4 * GIB}, "warn", "(cgroup v1) allows 4.0 GiB"),
        ({"old_limit": 14 * GIB}, "pass", "12.0 GiB"),
        ({"address_limit": 2 * GIB}, "warn", "may map 2.0 GiB only"),
        ({"swap_used": 3 * GIB}, "warn", "swap 3.0 GiB of 4.0 GiB used"),
        ({"swap_total": 0}, "pass", "12.0 GiB"),
        ({"huge_pages": "always madvise [never]"}, "warn", "huge pages are switched off"),
        ({"huge_pages": ""}, "pass", "12.0 GiB"),
    ],
)
def test_memory_is_judged_by_what_is_free_and_by_limits(change: dict, status: str, found: str) -> None:
    finding = check_memory(replace(MEMORY, **change))
    assert finding.status == status
    assert found in finding.found
    assert bool(finding.fix) == (status != "pass")


def test_the_memory_of_this_machine_is_read(tmp_path: Path) -> None:
    facts = read_memory(tmp_path)
    assert facts.machine == psutil.virtual_memory().total
    assert (facts.old_limit, facts.huge_pages) == (None, "")


def test_limits_and_switches_are_read_from_the_system(tmp_path: Path) -> None:
    (tmp_path / "fs" / "cgroup" / "memory").mkdir(parents=True)
    (tmp_path / "fs" / "cgroup" / "memory" / "memory.limit_in_bytes").write_text(f"{GIB}\n")
    (tmp_path / "kernel" / "mm" / "transparent_hugepage").mkdir(parents=True)
    (tmp_path / "kernel" / "mm" / "transparent_hugepage" / "enabled").write_text("always [madvise] never\n")
    facts = read_memory(tmp_path)
    assert (facts.old_limit, facts.huge_pages) == (GIB, "always [madvise] never")


def test_a_limit_of_version_1_above_the_memory_is_none(tmp_path: Path) -> None:
    (tmp_path / "fs" / "cgroup" / "memory").mkdir(parents=True)
    (tmp_path / "fs" / "cgroup" / "memory" / "memory.limit_in_bytes").write_text(f"{2**63 - 4096}\n")
    assert read_memory(tmp_path).old_limit is None
