"""The kernel sets, each on its device, and a seed for every test."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from llmcli_kernels import KernelSet, select

if TYPE_CHECKING:
    from llmcli_kernels.native.host import Host

HAS_TRITON = importlib.util.find_spec("triton") is not None
HAS_GPU = torch.cuda.is_available()
TRITON_DEVICE = "cuda" if HAS_GPU else "cpu"

if HAS_TRITON and not HAS_GPU:
    from tests.kernels.interpreter import mend
    from tests.kernels.interpreter_speed import hasten

    mend()
    hasten()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def triton_device() -> Iterator[str]:
    """Where Triton's kernels run: a GPU, else the CPU that its interpreter uses. New tensors lie there."""
    if not HAS_TRITON:
        pytest.skip("triton is not installed")
    with torch.device(TRITON_DEVICE):
        yield TRITON_DEVICE


@pytest.fixture(params=["reference", "torch", "cpu", "triton"])
def kernels(request: pytest.FixtureRequest) -> Iterator[KernelSet]:
    """Each set in turn: what every implementation must do."""
    if request.param == "triton":
        request.getfixturevalue("triton_device")
        yield select("cuda", "triton")
    else:
        yield select("cpu", request.param)


@pytest.fixture
def triton(triton_device: str) -> KernelSet:
    return select("cuda", "triton")


@pytest.fixture
def reference() -> KernelSet:
    return select("cpu", "reference")


@pytest.fixture
def cpu() -> KernelSet:
    return select("cpu", "cpu")


@pytest.fixture(scope="session")
def code_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session keeps compiled code."""
    folder = tmp_path_factory.mktemp("kernels")
    folder.chmod(0o700)
    return folder


@pytest.fixture(params=["avx512vnni", "avx2"])
def host(request: pytest.FixtureRequest, code_folder: Path) -> "Host":
    """This processor as each kind that it can stand in for."""
    pytest.importorskip("llvmlite")
    from llmcli_kernels.native.host import Host

    try:
        return Host(code_folder, request.param)
    except (RuntimeError, AttributeError) as error:
        pytest.skip(str(error))
