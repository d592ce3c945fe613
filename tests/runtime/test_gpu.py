"""Looking for a GPU: a fake of torch's interface says what a machine has, and the answer says what can be used."""

import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmcli.gpu_facts import GpuFacts, NoGpu
from llmcli.runtime.gpu import driver_version, examine, find_gpu

GIB = 1 << 30


def fake_torch(
    *,
    name: str = "NVIDIA H200",
    capability: tuple[int, int] = (9, 0),
    count: int = 1,
    cuda: str | None = "12.8",
    hip: str | None = None,
    architectures: tuple[str, ...] = ("sm_80", "sm_90", "sm_100", "sm_120", "compute_120"),
    failure: str = "",
) -> Any:
    """The part of torch that is asked; `failure` is what torch.cuda.init raises."""

    def init() -> None:
        warnings.warn("CUDA initialization: something that people should not see", stacklevel=1)
        if failure:
            raise RuntimeError(failure)

    card = SimpleNamespace(name=name, major=capability[0], minor=capability[1], multi_processor_count=132)
    return SimpleNamespace(
        __version__="2.11.0",
        version=SimpleNamespace(cuda=cuda, hip=hip),
        cuda=SimpleNamespace(
            init=init,
            device_count=lambda: count,
            get_device_properties=lambda index: card,
            mem_get_info=lambda index: (130 * GIB, 140 * GIB),
            get_arch_list=lambda: list(architectures),
        ),
    )


def refused(torch: Any, launcher: NoGpu | None = None) -> NoGpu:
    found = examine(torch, lambda: launcher)
    assert isinstance(found, NoGpu)
    return found


def test_what_a_gpu_offers_is_told_as_plain_values() -> None:
    assert examine(fake_torch(count=2), lambda: None) == GpuFacts(
        name="NVIDIA H200",
        capability=(9, 0),
        total_memory=140 * GIB,
        free_memory=130 * GIB,
        num_sms=132,
        count=2,
        cuda="12.8",
    )


def test_a_torch_without_cuda_is_told_with_its_version_and_how_to_get_another() -> None:
    found = refused(fake_torch(cuda=None))
    assert found.reason == "torch 2.11.0 is built without CUDA"
    assert "pip install" in found.fix
    assert found.present
    assert refused(fake_torch(cuda=None, hip="6.4")).reason == "torch 2.11.0 is built for AMD's GPUs"


OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by"
    " downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
START_FAILURES = [
    (OLD, "NVIDIA's driver supports CUDA 11.4, torch 2.11.0 needs 12.8", "torch built for CUDA 11.4", True),
    ("No CUDA GPUs are available", "torch sees no GPU", "CUDA_VISIBLE_DEVICES", False),
    ("Found no NVIDIA driver on your system. Please", "torch finds no NVIDIA driver", "--gpus all", False),
    ("CUDA error: out of memory\nCompile with", "not even the memory left to start CUDA", "nvidia-smi", True),
    ("CUDA error: all CUDA-capable devices are busy or unavailable", "is busy", "nvidia-smi", True),
    ("CUDA error: uncorrectable ECC error encountered\nmore", "start: uncorrectable ECC", "nvidia-smi", True),
    ("", "CUDA can not start: no reason given", "nvidia-smi", True),
]


@pytest.mark.parametrize(("message", "reason", "fix", "present"), START_FAILURES)
def test_cuda_that_does_not_start_says_why(message: str, reason: str, fix: str, present: bool) -> None:
    found = refused(fake_torch(failure=message or " "))
    assert reason in found.reason
    assert fix in found.fix
    assert found.present is present
    assert "\n" not in found.reason


def test_a_gpu_that_is_too_old_is_told_with_both_versions() -> None:
    found = refused(fake_torch(name="Tesla T4", capability=(7, 5), architectures=("sm_75", "sm_80")))
    assert found.reason == (
        "llmcli needs compute capability 8.0 (Ampere) or newer, this GPU, Tesla T4, has 7.5"
    )
    assert found.present


@pytest.mark.parametrize(
    "architectures", [("sm_80", "sm_90a"), ("sm_90", "sm_121"), ("sm_80", "compute_121")]
)
def test_a_gpu_too_new_for_this_torch_is_told(architectures: tuple[str, ...]) -> None:
    found = refused(fake_torch(capability=(12, 0), architectures=architectures))
    assert found.reason == "torch 2.11.0 has no code for compute capability 12.0 of NVIDIA H200"


@pytest.mark.parametrize("architectures", [("sm_80", "sm_86"), ("compute_80",), ("sm_89",), ()])
def test_code_of_the_same_major_version_or_ptx_of_a_lower_one_runs(architectures: tuple[str, ...]) -> None:
    torch = fake_torch(capability=(8, 9), architectures=architectures)
    assert isinstance(examine(torch, lambda: None), GpuFacts)


def test_kernels_that_can_not_be_launched_are_the_last_reason() -> None:
    problem = NoGpu("Triton is not installed", "pip install triton", present=True)
    assert refused(fake_torch(), problem) is problem
    assert "7.5" in refused(fake_torch(capability=(7, 5)), problem).reason


def test_torchs_own_warnings_are_not_repeated() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examine(fake_torch(), lambda: None)


def test_without_a_driver_there_is_no_gpu(tmp_path: Path) -> None:
    assert find_gpu(tmp_path) == NoGpu(
        "no NVIDIA driver was found",
        "if there is a GPU, install its driver: nvidia-smi must list it",
        present=False,
    )
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kfd").touch()
    assert "AMD" in find_gpu(tmp_path).reason  # type: ignore[union-attr]


def test_where_there_is_a_driver_torch_is_asked(tmp_path: Path) -> None:
    import torch

    if torch.version.cuda is not None:
        pytest.skip("this torch is built with CUDA")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    found = find_gpu(tmp_path)
    assert isinstance(found, NoGpu)
    assert found.reason == f"torch {torch.__version__} is built without CUDA"


def test_looking_where_there_is_no_driver_does_not_load_torch(
    tmp_path: Path, program_env: dict[str, str]
) -> None:
    code = (
        "import sys, pathlib; from llmcli.runtime.gpu import find_gpu;"
        "find_gpu(pathlib.Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=program_env).returncode == 0


VERSIONS = [
    ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024", "550.54.15"),
    (
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs@x)  Thu Jan 23",
        "570.86.15",
    ),
    ("garbage", ""),
    (None, ""),
]


@pytest.mark.parametrize(("text", "version"), VERSIONS)
def test_the_drivers_version_is_read_where_it_tells(text: str | None, version: str, tmp_path: Path) -> None:
    if text is not None:
        path = tmp_path / "proc" / "driver" / "nvidia"
        path.mkdir(parents=True)
        (path / "version").write_text(text + "\nGCC version: gcc version 12.2.0\n")
    assert driver_version(tmp_path) == version
