"""What the machine offers, with the limits of a container counted in."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from llmcli import hardware
from llmcli.gpu_facts import NoGpu
from llmcli.hardware import read_hardware_facts

GIB = 1 << 30


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of /sys/fs/cgroup."""
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    return tmp_path


def limit_memory(cgroup: Path, limit: str, used: int, page_cache: int = 0) -> None:
    (cgroup / "memory.max").write_text(f"{limit}\n")
    (cgroup / "memory.current").write_text(f"{used}\n")
    (cgroup / "memory.stat").write_text(f"anon 5\ninactive_file {page_cache}\nactive_file 7\n")


def test_without_a_limit_the_machine_decides(cgroup: Path) -> None:
    facts = read_hardware_facts()
    assert facts.gpu == NoGpu("no GPU was looked for")
    assert facts.total_memory == psutil.virtual_memory().total
    assert 0 < facts.free_memory <= facts.total_memory
    assert 1 <= facts.num_cores <= (psutil.cpu_count() or 1)


def test_a_containers_limit_counts_without_its_page_cache(cgroup: Path) -> None:
    total = psutil.virtual_memory().total
    assert total > 64 << 20
    limit_memory(cgroup, str(64 << 20), used=40 << 20, page_cache=30 << 20)
    facts = read_hardware_facts()
    assert (facts.total_memory, facts.free_memory) == (64 << 20, 54 << 20)


def test_a_container_that_is_full_has_nothing_free(cgroup: Path) -> None:
    limit_memory(cgroup, str(64 << 20), used=65 << 20)
    assert read_hardware_facts().free_memory == 0


@pytest.mark.parametrize("limit", ["max", "", "lots"])
def test_a_limit_that_is_none_is_ignored(cgroup: Path, limit: str) -> None:
    limit_memory(cgroup, limit, used=GIB)
    assert read_hardware_facts().total_memory == psutil.virtual_memory().total


@pytest.mark.parametrize(("quota", "cores"), [("100000 100000", 1), ("50000 100000", 1), ("10000 100000", 1)])
def test_a_quota_of_processor_time_limits_the_cores(cgroup: Path, quota: str, cores: int) -> None:
    (cgroup / "cpu.max").write_text(quota + "\n")
    assert read_hardware_facts().num_cores == cores


@pytest.mark.parametrize("quota", ["max 100000", "", "garbage", "1 0 2"])
def test_no_quota_leaves_all_cores(cgroup: Path, quota: str) -> None:
    unlimited = read_hardware_facts().num_cores
    (cgroup / "cpu.max").write_text(quota)
    assert read_hardware_facts().num_cores == unlimited


def test_the_flags_that_native_kernels_need_are_those_that_the_kernels_ask_for() -> None:
    pytest.importorskip("llvmlite", reason="llvmlite is not installed")
    from llmcli_kernels.native.machine import MACHINES

    assert set(MACHINES["avx2"].needs) == hardware.NATIVE_FLAGS


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc/cpuinfo")
def test_native_kernels_are_found_where_llvm_finds_a_machine_for_them() -> None:
    pytest.importorskip("llvmlite", reason="llvmlite is not installed")
    from llmcli_kernels.native.machine import machines_here

    x86 = platform.machine() == "x86_64"
    assert read_hardware_facts().native_kernels == (x86 and bool(machines_here()))


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="reads /proc/cpuinfo")
def test_the_processor_is_named_with_what_it_can_do() -> None:
    text = Path("/proc/cpuinfo").read_text()
    name = hardware.cpu_name()
    assert ("AVX2" in name) == (" avx2 " in text)
    assert ("AVX-512" in name) == (" avx512f " in text)
    assert "(" not in name or name.endswith(")")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is not told here")
def test_a_main_thread_that_openmp_binds_to_a_core_is_not_all_that_there_is() -> None:
    program = "import torch, llmcli.hardware as h; print(h.read_hardware_facts().num_cores)"
    told = {
        bind: subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"OMP_PROC_BIND": bind},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for bind in ("false", "true")
    }
    assert told["true"] == told["false"]
