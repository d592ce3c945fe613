"""What only the Triton kernel has: summands as input, tiles of several heads, float8 made of integers."""

import pytest
import torch

from llmcli_kernels import KernelSet
from llmcli_kernels.activations import Partials
from llmcli_kernels.paged_kv import quantize
from tests.kernels.bounds import assert_close
from tests.kernels.test_rope_kv_write_kernel import DTYPES, STORAGES, Case, assert_written, at_slots


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("split", [1, 2, 5])
@pytest.mark.parametrize("norm", [False, True], ids=["", "norm"])
def test_summands_are_added_up_and_rounded_once(triton: KernelSet, split: int, norm: bool, dtype):
    case = Case(dtype=dtype, norm=norm, size=24)
    partials = Partials(torch.randn(split, *case.qkv.shape), dtype)
    case.qkv = partials.parts.double().sum(dim=0).to(dtype)
    expected_q, expected_k, v = case.expected()
    kv = case.cache()
    q = triton.rope_kv_write(partials, case.positions, case.slots, case.table, kv, 4, case.norm)
    assert q.dtype == dtype
    operation = "rope_kv_write_norm" if norm else "rope_kv_write"
    assert_close(operation, q, expected_q)
    assert_close(operation, at_slots(kv.keys, case.slots), expected_k)
    assert_close("rope_kv_write", at_slots(kv.values, case.slots), v)


def test_q_is_new_and_contiguous_and_the_input_is_left_alone(triton: KernelSet):
    case = Case()
    before = case.qkv.clone()
    q = triton.rope_kv_write(case.qkv, case.positions, case.slots, case.table, case.cache(), 4, None)
    assert q.is_contiguous()
    assert torch.equal(case.qkv, before)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (3, 1), (1, 1), (5, 3)])
@pytest.mark.parametrize("norm", [False, True], ids=["", "norm"])
def test_a_tile_may_hold_heads_of_q_k_and_v(
    triton: KernelSet, monkeypatch, heads: int, kv_heads: int, norm: bool
):
    monkeypatch.setattr("llmcli_kernels.rope_kv_write.triton_rope_kv_write.MANY_HEADS", 0)
    assert_written(Case(heads=heads, kv_heads=kv_heads, size=12, rotary=8, norm=norm), triton)


@pytest.mark.parametrize("storage", STORAGES)
def test_8_bit_numbers_and_scales_are_those_of_quantize(triton: KernelSet, monkeypatch, storage):
    monkeypatch.setattr("llmcli_kernels.rope_kv_write.triton_rope_kv_write.MANY_HEADS", 0)
    case = Case(slots=tuple(range(20)), kv_heads=3, size=256)
    v = case.parts()[2]
    v.mul_(10.0 ** -torch.arange(20)[:, None, None])
    v[:, 0] = (10 ** -torch.linspace(0, 9, 256)) * torch.tensor([1.0, -1.0]).repeat(128)
    kv = case.cache(storage)
    case.run(triton, kv)
    stored, scales = quantize(v, storage)
    assert torch.equal(at_slots(kv.values.view(torch.uint8), case.slots), stored.view(torch.uint8))
    assert torch.equal(at_slots(kv.value_scales, case.slots), scales)


def test_every_float8_and_every_tie_between_two_is_rounded_as_torch_does(triton: KernelSet):
    codes = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    ties = (codes[:-1] + codes[1:]) / 2
    numbers = torch.cat((codes, ties, ties.nextafter(codes[1:]), ties.nextafter(codes[:-1])))
    numbers = torch.cat((numbers, torch.tensor([448.0] * (512 - len(numbers)))))
    case = Case(slots=(0, 1), heads=1, kv_heads=1, size=512)
    case.parts()[2][0], case.parts()[2][1] = numbers, -numbers
    kv = case.cache(torch.float8_e4m3fn)
    case.run(triton, kv)
    assert (at_slots(kv.value_scales, case.slots) == 1).all()
    expected = torch.stack((numbers, -numbers)).to(torch.float8_e4m3fn)
    assert torch.equal(at_slots(kv.values, case.slots)[:, 0].view(torch.uint8), expected.view(torch.uint8))
