"""What torch and Triton say when a GPU fails becomes an error with need, have and a way out."""

import subprocess

import pytest
import torch

from llmcli.errors import DeviceUnavailableError, DoesNotFitError, EngineError
from llmcli.runtime.gpu_errors import gpu_error

OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB of which 1.20 GiB is"
    " free. Including non-PyTorch memory, this process has 138.60 GiB memory in use. Of the allocated memory ..."
)


def test_memory_that_runs_out_is_told_with_need_and_have() -> None:
    error = gpu_error(torch.OutOfMemoryError(OUT_OF_MEMORY))
    assert isinstance(error, EngineError)
    assert error.what == (
        "the GPU ran out of memory: 2.00 GiB more were needed, 1.20 GiB of 139.81 GiB are free"
    )
    assert "--kv-cache-memory" in error.fix


def test_memory_that_runs_out_while_loading_is_a_model_that_does_not_fit() -> None:
    assert isinstance(gpu_error(torch.OutOfMemoryError(OUT_OF_MEMORY), loading=True), DoesNotFitError)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "Triton Error [CUDA]: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_memory_that_runs_out_is_known_by_all_its_names(text: str) -> None:
    error = gpu_error(RuntimeError(text))
    assert error is not None
    assert error.what == "the GPU ran out of memory"


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("CUDA error: an illegal memory access was encountered\nmore", "an illegal memory access was", "bug"),
        ("Triton Error [CUDA]: misaligned address", "misaligned address", "bug"),
        ("CUDA error: uncorrectable ECC error encountered", "uncorrectable ECC error", "damaged"),
        ("CUDA error: unspecified launch failure", "unspecified launch failure", "--device cpu"),
    ],
)
def test_a_gpu_that_fails_says_how_in_one_line(text: str, what: str, fix: str) -> None:
    error = gpu_error(
        torch.AcceleratorError(text) if hasattr(torch, "AcceleratorError") else RuntimeError(text)
    )
    assert isinstance(error, EngineError)
    assert error.what.startswith(f"the GPU failed: {what}")
    assert "\n" not in error.what
    assert fix in error.fix


def test_a_compiler_that_is_missing_when_a_kernel_is_first_launched_is_told() -> None:
    error = gpu_error(RuntimeError("Failed to find C compiler. Please specify via CC environment variable"))
    assert isinstance(error, DeviceUnavailableError)
    assert error.what == "Triton compiles a launcher in C, and no C compiler was found"
    assert isinstance(gpu_error(subprocess.CalledProcessError(1, ["gcc"])), DeviceUnavailableError)


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("shapes differ")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert gpu_error(error, loading=True) is None


def test_a_tile_that_a_gpu_has_no_room_for_says_what_to_do():
    errors = pytest.importorskip("triton.runtime.errors")
    failure = gpu_error(errors.OutOfResources(250_000, 101_376, "shared memory"))
    assert isinstance(failure, EngineError)
    assert "shared memory" in failure.what
    assert "llmcli tune" in failure.fix
