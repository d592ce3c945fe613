"""What the self tests of kernels tell, and that they notice a wrong kernel."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from llmcli.jobs.doctor.compute import LARGEST_ERROR
from llmcli.runtime import self_test
from llmcli_kernels import KernelSet, select


@pytest.mark.parametrize("name", ["cpu", "torch", "reference"])
def test_kernels_of_the_cpu_agree_with_the_reference(name: str) -> None:
    errors = self_test.try_kernels(select("cpu", name), "cpu", "bfloat16")
    assert set(errors) == {"rms_norm", "silu_mul", "int4_linear"}
    assert max(errors.values()) <= LARGEST_ERROR


def broken(**operations: Any) -> KernelSet:
    return replace(select("cpu", "torch"), **operations)


def test_a_wrong_kernel_is_off_by_more_than_the_bound() -> None:
    right = select("cpu", "torch").silu_mul
    for wrong in (lambda x: -right(x), lambda x: right(x).roll(1, 0), lambda x: torch.zeros_like(right(x))):
        errors = self_test.try_kernels(broken(silu_mul=wrong), "cpu", "bfloat16")
        assert errors["silu_mul"] > LARGEST_ERROR
        assert errors["rms_norm"] <= LARGEST_ERROR


def test_a_kernel_that_gives_nan_is_noticed() -> None:
    right = select("cpu", "torch").silu_mul
    errors = self_test.try_kernels(broken(silu_mul=lambda x: right(x) * math.nan), "cpu", "bfloat16")
    assert math.isnan(errors["silu_mul"])


def test_the_native_kernels_of_this_machine_are_tried() -> None:
    pytest.importorskip("llvmlite")
    from llmcli_kernels.native.machine import machines_here

    facts = self_test.native_facts()
    assert facts["machines"] == machines_here()
    assert facts["trouble"] is None
    assert max(facts["errors"].values()) <= LARGEST_ERROR


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to do it on")
def test_tritons_kernels_are_tried_in_its_interpreter() -> None:
    pytest.importorskip("triton")
    facts = self_test.triton_facts(device="cpu")
    assert facts["triton"]
    assert max(facts["errors"].values()) <= LARGEST_ERROR


def test_torch_tells_its_build_and_why_there_is_no_gpu_or_which_one() -> None:
    facts = self_test.torch_facts()
    assert facts["version"] == torch.__version__
    assert (facts["gpu"] is None) != (facts["no_gpu"] is None)
