"""Tensors that travel as one buffer arrive as they were."""

import pytest
import torch

from llmcli.runtime.transfer import ALIGNMENT, pack, to_device, unpack

TENSORS = [
    torch.arange(3),
    torch.tensor([], dtype=torch.int64),
    torch.tensor([[1.5, -2.0], [0.25, 9.0]], dtype=torch.float32),
    torch.tensor([0.1], dtype=torch.float64),
    torch.arange(40).view(4, 10).to(torch.int32),
    torch.tensor([True, False, True]),
]


@pytest.mark.parametrize("count", range(len(TENSORS) + 1))
def test_what_is_packed_is_unpacked_alike_and_aligned(count: int) -> None:
    buffer = pack(TENSORS[:count])
    found = unpack(buffer.clone(), TENSORS[:count])
    for tensor, copy in zip(TENSORS[:count], found, strict=True):
        assert (copy.dtype, copy.shape) == (tensor.dtype, tensor.shape)
        assert copy.is_contiguous()
        assert torch.equal(copy, tensor)
        assert copy.storage_offset() * copy.element_size() % ALIGNMENT == 0


def test_a_tensor_that_is_not_contiguous_is_packed_by_value() -> None:
    tensor = torch.arange(12).view(3, 4).t()
    assert torch.equal(unpack(pack([tensor]), [tensor])[0], tensor)


def test_on_a_cpu_nothing_is_copied() -> None:
    assert all(a is b for a, b in zip(to_device(TENSORS, torch.device("cpu")), TENSORS, strict=True))


def test_another_device_gets_every_shape_and_dtype() -> None:
    found = to_device(TENSORS, torch.device("meta"))
    assert [(t.device.type, t.dtype, t.shape) for t in found] == [("meta", t.dtype, t.shape) for t in TENSORS]
