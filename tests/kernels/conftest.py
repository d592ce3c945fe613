"""The kernel sets of the CPU, and a seed for every test."""

import pytest
import torch

from llmcli_kernels import KernelSet, select


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["reference", "torch", "cpu"])
def kernels(request: pytest.FixtureRequest) -> KernelSet:
    """Each set in turn: what every implementation must do."""
    return select("cpu", request.param)


@pytest.fixture
def reference() -> KernelSet:
    return select("cpu", "reference")


@pytest.fixture
def cpu() -> KernelSet:
    return select("cpu", "cpu")
