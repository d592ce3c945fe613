"""4-bit layers with int8 activations: error, one result for every batch and thread count, odd input, the torch path."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from llmcli_kernels import Int4Weight, KernelSet, select

pytest.importorskip("llvmlite")

from llmcli_kernels.int4_linear.native import NativeInt4Linear
from llmcli_kernels.int4_linear.native.records import PackedRecords
from llmcli_kernels.native.host import Host
from tests.kernels.bounds import RELATIVE_ERROR, assert_close

ROWS = (1, 2, 3, 4, 5, 8, 16, 17, 33, 64, 65, 200, 512)
BF16 = torch.bfloat16


def make_weight(n: int, k: int, group_size: int) -> Int4Weight:
    return Int4Weight(
        q=torch.randint(0, 256, (n, k // 2), dtype=torch.uint8),
        zeros=torch.randint(0, 16, (n, k // group_size), dtype=torch.uint8),
        scales=(torch.rand(n, k // group_size) * 0.02 + 0.001).half(),
        group_size=group_size,
    )


def exact_product(x: Tensor, weight: Int4Weight, bias: Tensor | None = None) -> Tensor:
    product = x.double() @ weight.dequantize(torch.float64).T
    return (product if bias is None else product + bias.double()).to(x.dtype)


def make_linear(host: Host) -> NativeInt4Linear:
    torch_set = select("cpu", "torch")
    return NativeInt4Linear(host, torch_set.pack_int4, torch_set.int4_linear)


@pytest.fixture
def linear(host: Host) -> NativeInt4Linear:
    return make_linear(host)


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize(("n", "k"), [(8, 128), (24, 384), (64, 2048), (72, 5632), (2560, 2048)])
def test_product_is_close_and_a_row_is_the_same_bits_in_any_batch(
    linear: NativeInt4Linear, n: int, k: int, group_size: int
):
    weight, x, bias = make_weight(n, k, group_size), torch.randn(512, k).to(BF16), torch.randn(n).to(BF16)
    packed = linear.pack_int4(weight, BF16)
    assert isinstance(packed, PackedRecords)
    together = linear(x, packed, None)
    assert_close("int4_linear_int8", together, exact_product(x, weight))
    assert_close("int4_linear_int8", linear(x, packed, bias), exact_product(x, weight, bias))
    for rows in ROWS:
        assert torch.equal(linear(x[:rows], packed, None), together[:rows])
        assert torch.equal(linear(x[-rows:], packed, None), together[-rows:])


@pytest.mark.parametrize("zero", [0, 15])
def test_zero_points_at_the_ends_are_exact(linear: NativeInt4Linear, zero: int):
    """Activations that int8 holds exactly: what is left is the rounding of the output."""
    weight = make_weight(72, 256, 64)
    weight = Int4Weight(weight.q, torch.full_like(weight.zeros, zero), weight.scales, 64)
    x = torch.randint(-127, 128, (5, 256)).to(BF16)
    x[:, ::32] = 127
    product = linear(x, linear.pack_int4(weight, BF16), None)
    assert_close("int4_linear_int8_exact", product, exact_product(x, weight))


def test_zero_points_cancel_exactly(linear: NativeInt4Linear):
    weight = make_weight(64, 256, 128)
    weight = Int4Weight(torch.full_like(weight.q, 0x77), torch.full_like(weight.zeros, 7), weight.scales, 128)
    product = linear(torch.randn(9, 256).to(BF16), linear.pack_int4(weight, BF16), None)
    assert torch.equal(product, torch.zeros(9, 64, dtype=BF16))


def test_a_group_that_spans_the_whole_row_is_split(linear: NativeInt4Linear):
    weight, x = make_weight(64, 512, 512), torch.randn(3, 512).to(BF16)
    packed = linear.pack_int4(weight, BF16)
    assert isinstance(packed, PackedRecords)
    assert_close("int4_linear_int8", linear(x, packed, None), exact_product(x, weight))


def test_a_few_activations_a_hundred_times_the_others(linear: NativeInt4Linear):
    """Norm over norm: where few numbers carry the sum, the largest difference says more about the seed."""
    weight, x = make_weight(256, 2048, 128), torch.randn(17, 2048)
    x[:, [5, 700, 1500]] *= 100
    product = linear(x.to(BF16), linear.pack_int4(weight, BF16), None).double()
    expected = exact_product(x.to(BF16), weight).double()
    bound = RELATIVE_ERROR["int4_linear_int8_outliers"][BF16]
    assert (product - expected).norm() <= bound * expected.norm()


def test_rows_of_zeros_give_the_bias(linear: NativeInt4Linear):
    x, bias = torch.zeros(3, 128, dtype=BF16), torch.randn(24).to(BF16)
    packed = linear.pack_int4(make_weight(24, 128, 128), BF16)
    assert torch.equal(linear(x, packed, None), torch.zeros(3, 24, dtype=BF16))
    assert torch.equal(linear(x, packed, bias), bias.expand(3, 24))


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e30])
def test_tiny_and_huge_activations(linear: NativeInt4Linear, size: float):
    weight, x = make_weight(64, 256, 64), (torch.randn(4, 256) * size).to(BF16)
    product = linear(x, linear.pack_int4(weight, BF16), None)
    if size > 2**-100:
        assert_close("int4_linear_int8", product, exact_product(x, weight))
    assert product.isfinite().all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("rows", [1, 5, 20, 70])
def test_a_row_that_is_not_finite_spoils_all_of_itself_and_nothing_else(
    linear: NativeInt4Linear, rows: int, bad: float
):
    weight, x = make_weight(136, 256, 64), torch.randn(rows, 256).to(BF16)
    weight.scales[3] = 0
    packed = linear.pack_int4(weight, BF16)
    expected = linear(x, packed, None)
    x[rows // 2, 77] = bad
    product = linear(x, packed, None)
    assert not product[rows // 2].isfinite().any()
    others = torch.arange(rows) != rows // 2
    assert torch.equal(product[others], expected[others])


def test_the_number_of_threads_changes_no_bit(linear: NativeInt4Linear):
    packed, x, before = (
        linear.pack_int4(make_weight(1000, 1024, 128), BF16),
        torch.randn(40, 1024).to(BF16),
        torch.get_num_threads(),
    )
    results = []
    try:
        for threads in (1, 2, 3, 4, 9, 2):
            torch.set_num_threads(threads)
            results += [linear(x, packed, None) for _ in range(3)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


def test_several_threads_may_call_at_once(linear: NativeInt4Linear):
    packed = linear.pack_int4(make_weight(640, 1024, 128), BF16)
    inputs = [torch.randn(rows, 1024).to(BF16) for rows in (1, 3, 40, 7) * 5]
    expected = [linear(x, packed, None) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda x: linear(x, packed, None), inputs))
    assert all(torch.equal(result, one) for result, one in zip(results, expected, strict=True))


@pytest.mark.parametrize(("n", "k", "group_size"), [(64, 96, 32), (64, 192, 96), (64, 320, 64)])
def test_sizes_that_do_not_fit_go_to_torch(linear: NativeInt4Linear, n: int, k: int, group_size: int):
    weight, x = make_weight(n, k, group_size), torch.randn(5, k).to(BF16)
    packed = linear.pack_int4(weight, BF16)
    assert not isinstance(packed, PackedRecords)
    assert_close("int4_linear", linear(x, packed, None), exact_product(x, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_activations_than_bfloat16_are_never_rounded_to_int8(cpu: KernelSet, dtype: torch.dtype):
    weight, x = make_weight(64, 256, 128), torch.randn(5, 256).to(dtype)
    assert_close(
        "int4_linear", cpu.int4_linear(x, cpu.pack_int4(weight, dtype), None), exact_product(x, weight)
    )


def test_weights_packed_for_bfloat16_take_nothing_else(linear: NativeInt4Linear):
    packed = linear.pack_int4(make_weight(64, 128, 128), BF16)
    with pytest.raises(ValueError, match=r"packed for torch.bfloat16, x is torch.float32"):
        linear(torch.ones(1, 128), packed, None)


def test_a_kernel_that_is_wrong_here_is_not_used(linear: NativeInt4Linear, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llmcli_kernels.int4_linear.native.SELF_TEST_ERROR", -1.0)
    weight, x = make_weight(64, 256, 128), torch.randn(5, 256).to(BF16)
    product = linear(x, linear.pack_int4(weight, BF16), None)
    assert_close("int4_linear", product, exact_product(x, weight))
    assert "wrong here" in (linear.unavailable or "")
