"""8-bit layers with int8 activations on each kind of processor: one result for every batch and thread count."""

import pytest
import torch

pytest.importorskip("llvmlite")

from llmcli_kernels.int8_linear import cpu
from llmcli_kernels.int8_linear.native import NativeInt8Linear, PackedBytes, pack
from llmcli_kernels.native.host import Host
from tests.kernels.bounds import assert_close
from tests.kernels.test_int8_linear_kernel import BF16, exact_product


@pytest.fixture
def linear(host: Host) -> NativeInt8Linear:
    return NativeInt8Linear(host, cpu.pack_int8, cpu.int8_linear)


@pytest.mark.parametrize(("n", "k"), [(1, 128), (64, 128), (65, 256), (1000, 2048), (320, 896)])
def test_product_is_close_and_a_row_is_the_same_bits_in_any_batch(linear: NativeInt8Linear, n: int, k: int):
    weight, x = torch.randn(n, k).to(BF16), torch.randn(200, k).to(BF16)
    packed = linear.pack_int8(weight)
    assert isinstance(packed, PackedBytes)
    together = linear(x, packed)
    assert_close("int8_linear_int8", together, exact_product(x, weight))
    for rows in (1, 2, 3, 5, 8, 33, 193):
        assert torch.equal(linear(x[:rows], packed), together[:rows])


def test_the_largest_products_do_not_overflow(linear: NativeInt8Linear):
    """All weights and activations at the ends of int8: exact but for the scales' rounding."""
    weight, x = torch.ones(64, 2048).to(BF16), torch.ones(4, 2048).to(BF16)
    weight[::2], x[1::2] = -1, -1
    expected = exact_product(x, weight)
    assert expected.abs().min() > 2000
    torch.testing.assert_close(linear(x, linear.pack_int8(weight)), expected, rtol=1e-6, atol=0)


def test_the_number_of_threads_changes_no_bit(linear: NativeInt8Linear):
    packed, x = linear.pack_int8(torch.randn(1000, 1024).to(BF16)), torch.randn(40, 1024).to(BF16)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            results.append(linear(x, packed))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_row_that_is_not_finite_spoils_only_itself(linear: NativeInt8Linear):
    packed, x = linear.pack_int8(torch.randn(65, 256).to(BF16)), torch.randn(3, 256).to(BF16)
    expected = linear(x, packed)
    x[1, 77] = torch.inf
    product = linear(x, packed)
    assert product[1].isnan().all()
    assert torch.equal(product[::2], expected[::2])


def test_what_does_not_fit_goes_to_torch(linear: NativeInt8Linear):
    assert not isinstance(linear.pack_int8(torch.randn(64, 96).to(BF16)), PackedBytes)
    assert not isinstance(linear.pack_int8(torch.randn(64, 128)), PackedBytes)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize(("n", "k"), [(1, 128), (64, 256), (200, 896), (1000, 2048)])
def test_packed_bytes_are_those_that_torch_makes(linear: NativeInt8Linear, n: int, k: int, threads: int):
    weight, before = torch.randn(n, k).to(BF16), torch.get_num_threads()
    for row, value in enumerate((torch.inf, torch.nan, -torch.inf, 1e-39, 1e-38, 3e38)):
        weight[row * n // 7, k // 3] = value
    weight[-1] = 0
    weight[n // 2] *= 1e-38
    torch.set_num_threads(threads)
    try:
        packed, expected = linear.pack_int8(weight), pack(weight)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(packed.records, expected.records)
    assert torch.equal(packed.scales.view(torch.int32), expected.scales.view(torch.int32))
