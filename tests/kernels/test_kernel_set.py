"""Which kernel sets exist, and that operations check their arguments."""

import pytest
import torch

from llmcli_kernels import KernelSet, select


def test_auto_on_a_cpu_is_the_cpu_set():
    assert select("cpu").name == "cpu"
    assert select("cpu", "reference").name == "reference"
    assert select("cpu", "reference").device == "cpu"


@pytest.mark.parametrize(("device", "name"), [("cpu", "triton"), ("tpu", "auto"), ("tpu", "cpu")])
def test_an_unknown_set_is_an_error_that_lists_the_known_ones(device: str, name: str):
    with pytest.raises(ValueError, match=f"{name}.*{device}.*cpu: auto, cpu, avx2, torch, reference"):
        select(device, name)


def test_arguments_may_be_given_by_name(kernels: KernelSet):
    x = torch.ones(2, 4)
    assert torch.equal(kernels.rms_norm(x=x, weight=torch.ones(4), eps=0.0), x)
