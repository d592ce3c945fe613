"""torch, GPUs and compiled kernels, as judged from plain facts: no hardware is needed."""

import stat
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from llmcli.config import GIB, MIB
from llmcli.gpu_facts import GpuFacts, NoGpu
from llmcli.jobs.doctor import compute
from llmcli.jobs.doctor.compute import (
    Card,
    GpuUser,
    check_cpu_kernels,
    check_gpu,
    check_gpu_kernels,
    check_torch,
    gpu_of,
    is_private,
    no_cpu_kernels,
    read_cards,
)

H200 = GpuFacts(
    name="NVIDIA H200",
    capability=(9, 0),
    total_memory=140 * GIB,
    free_memory=139 * GIB,
    num_sms=132,
    driver="570.86.15",
)
ABSENT = NoGpu("no NVIDIA driver was found", "if there is a GPU, install its driver")
UNUSABLE = NoGpu("torch 2.9.0+cpu is built without CUDA", "install a build with CUDA", present=True)
CARD = Card(index="0", name="NVIDIA H200", total=140 * GIB, free=139 * GIB, driver="570", capability="9.0")
RIGHT = {"rms_norm": 0.001, "silu_mul": 0.0, "int4_linear": 0.01}
NATIVE = {
    "machines": ["avx512vnni", "avx2"],
    "trouble": None,
    "seconds": 1.5,
    "errors": RIGHT,
    "folder": "/c/k",
}
TRITON = {"triton": "3.9.0", "seconds": 3.2, "errors": RIGHT, "folder": "/c/t"}


def torch_with(gpu: GpuFacts | NoGpu, cuda: str | None = None) -> dict[str, Any]:
    usable = isinstance(gpu, GpuFacts)
    return {
        "version": "2.13.0",
        "cuda": cuda,
        "threads": 2,
        "import_s": 1.2,
        "gpu": asdict(gpu) if usable else None,
        "no_gpu": None if usable else asdict(gpu),
    }


@pytest.mark.parametrize("gpu", [H200, ABSENT, UNUSABLE])
def test_a_gpu_survives_the_way_through_json(gpu: GpuFacts | NoGpu) -> None:
    import json

    assert gpu_of(json.loads(json.dumps(torch_with(gpu)))) == gpu


def test_torch_for_cpus_passes_where_there_is_no_gpu() -> None:
    finding = check_torch(torch_with(ABSENT))
    assert (finding.status, finding.found) == ("pass", "2.13.0, built for CPUs; imported in 1.2 s")


def test_torch_for_the_gpu_that_is_there_passes_with_the_driver() -> None:
    finding = check_torch(torch_with(H200, "13.0"))
    assert finding.status == "pass"
    assert "built for CUDA 13.0" in finding.found
    assert finding.details == ("driver 570.86.15",)


def test_no_gpu_is_fine() -> None:
    finding = check_gpu(ABSENT, [], [])
    assert (finding.status, finding.fix) == ("pass", "")
    assert "models run on the CPU (no NVIDIA driver was found)" in finding.found


@pytest.mark.parametrize(("gpu", "cards"), [(UNUSABLE, []), (ABSENT, [CARD])])
def test_a_gpu_that_is_there_and_not_used_is_a_warning(gpu: NoGpu, cards: list[Card]) -> None:
    finding = check_gpu(gpu, cards, [])
    assert finding.status == "warn"
    assert gpu.reason in finding.found


def test_a_free_gpu_passes_with_its_name_memory_and_users() -> None:
    finding = check_gpu(H200, [CARD], [GpuUser("12", "python3", 500 * MIB)])
    assert finding.status == "pass"
    assert finding.found == "NVIDIA H200, compute capability 9.0, 139 GiB of 140 GiB free"
    assert finding.details[1] == "python3 (process 12) holds 500 MiB"


def test_a_gpu_that_others_have_filled_is_a_warning_that_names_the_largest() -> None:
    users = [GpuUser("12", "python3", GIB), GpuUser("13", "llmcli", 99 * GIB)]
    finding = check_gpu(replace(H200, free_memory=40 * GIB), [CARD], users)
    assert finding.status == "warn"
    assert "llmcli holds 99.0 GiB" in finding.found
    assert "kill 13" in finding.fix


def test_a_full_gpu_whose_users_are_hidden_is_a_warning_too() -> None:
    finding = check_gpu(replace(H200, free_memory=40 * GIB), [CARD], [])
    assert (finding.status, finding.fix) == ("warn", "see who uses it: nvidia-smi")


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program in the place of nvidia-smi."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_cards_and_their_users_are_read_from_nvidia_smi(tmp_path, monkeypatch) -> None:
    lines = """case "$1" in
    --query-gpu*) echo '0, NVIDIA H200, 143771, 143000, 570.86.15, 9.0';;
    *) echo '77, /home/ada/venv/bin/python3, 1000'; echo '78, "a, b", [N/A]';;
    esac"""
    smi(tmp_path, monkeypatch, lines)
    cards, users = read_cards()
    assert cards == [
        Card(
            index="0",
            name="NVIDIA H200",
            total=143771 * MIB,
            free=143000 * MIB,
            driver="570.86.15",
            capability="9.0",
        )
    ]
    assert users == [GpuUser("77", "python3", 1000 * MIB), GpuUser("78", "a, b", 0)]


def test_an_nvidia_smi_that_fails_or_is_not_there_gives_no_cards(tmp_path, monkeypatch) -> None:
    smi(tmp_path, monkeypatch, "echo 'no devices were found'; exit 6")
    assert read_cards() == ([], [])
    monkeypatch.setattr(compute.shutil, "which", lambda name: None)
    assert read_cards() == ([], [])


def test_right_gpu_kernels_pass_with_their_folder() -> None:
    finding = check_gpu_kernels(TRITON)
    assert (finding.status, finding.found) == (
        "pass",
        "Triton 3.9.0: 3 kernels compiled, run and right in 3.2 s",
    )
    assert "/c/t" in finding.details[0]


@pytest.mark.parametrize("error", [0.5, float("nan"), float("inf")])
def test_a_wrong_kernel_fails_on_either_device(error: float) -> None:
    wrong = RIGHT | {"silu_mul": error}
    gpu, cpu = (
        check_gpu_kernels(TRITON | {"errors": wrong}),
        check_cpu_kernels(NATIVE | {"errors": wrong}, True),
    )
    assert (gpu.status, cpu.status) == ("fail", "fail")
    assert "silu_mul" in gpu.found
    assert "silu_mul" in cpu.found
    assert "rms_norm" not in cpu.found


def test_right_cpu_kernels_pass_with_the_best_instructions() -> None:
    finding = check_cpu_kernels(NATIVE, True)
    assert finding.status == "pass"
    assert finding.found.startswith("AVX-512 VNNI: 3 kernels")


@pytest.mark.parametrize(
    ("change", "private", "found", "fix"),
    [
        ({"trouble": "llvmlite is not installed"}, True, "llvmlite is not installed", "pip install"),
        ({"machines": []}, True, "neither AVX-512 VNNI nor AVX2", "newer processor"),
        ({"folder": None}, True, "without a home", "XDG_CACHE_HOME"),
        ({}, False, "others may write to /c/k", "chmod go-w /c/k"),
    ],
)
def test_kernels_that_are_slower_or_compiled_each_time_are_a_warning(
    change: dict[str, Any], private: bool, found: str, fix: str
) -> None:
    finding = check_cpu_kernels(NATIVE | change, private)
    assert finding.status == "warn"
    assert found in finding.found
    assert fix in finding.fix


def test_other_machines_have_no_native_kernels_to_test() -> None:
    assert no_cpu_kernels("Linux", "x86_64") is None
    finding = no_cpu_kernels("Darwin", "arm64")
    assert finding is not None
    assert finding.status == "skip"
    assert "Darwin on arm64" in finding.found


def test_a_folder_is_private_when_nobody_else_may_write(tmp_path: Path) -> None:
    uid = tmp_path.stat().st_uid
    tmp_path.chmod(0o755)
    assert is_private(tmp_path, uid)
    assert not is_private(tmp_path, uid + 1)
    tmp_path.chmod(stat.S_IMODE(tmp_path.stat().st_mode) | stat.S_IWOTH)
    assert not is_private(tmp_path, uid)
    assert is_private(tmp_path / "not-there", uid)
