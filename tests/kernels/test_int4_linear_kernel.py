"""4-bit linear layers: the format by hand, the product against float64, packing, merging, awkward shapes."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from llmcli_kernels import Int4Weight, KernelSet
from llmcli_kernels.activations import as_tensor
from tests.kernels.bounds import assert_close

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def make_weight(n: int, k: int, group_size: int) -> Int4Weight:
    return Int4Weight(
        q=torch.randint(0, 256, (n, k // 2), dtype=torch.uint8),
        zeros=torch.randint(0, 16, (n, k // group_size), dtype=torch.uint8),
        scales=(torch.rand(n, k // group_size) * 0.02 + 0.001).half(),
        group_size=group_size,
    )


def exact_product(x: Tensor, weight: Int4Weight, bias: Tensor | None = None) -> Tensor:
    """The product in float64, from the definition of the format, one element at a time along k."""
    columns = []
    for k in range(weight.K):
        nibble = (weight.q[:, k // 2] >> (4 * (k % 2))) & 15
        group = k // weight.group_size
        columns.append((nibble.double() - weight.zeros[:, group].double()) * weight.scales[:, group].double())
    product = x.double() @ torch.stack(columns)
    return product if bias is None else product + bias.double()


def test_even_k_is_in_the_low_nibble_and_zeros_are_subtracted_before_scaling():
    weight = Int4Weight(
        q=torch.tensor([[0x31, 0xF0]], dtype=torch.uint8),
        zeros=torch.tensor([[1, 8]], dtype=torch.uint8),
        scales=torch.tensor([[0.5, 2.0]], dtype=torch.float16),
        group_size=2,
    )
    assert (weight.N, weight.K) == (1, 4)
    assert weight.integers().tolist() == [[1, 3, 0, 15]]
    assert weight.dequantize(torch.float32).tolist() == [[0.0, 1.0, -16.0, 14.0]]


def test_merged_weights_are_the_rows_of_each_in_order():
    first, second = make_weight(3, 64, 32), make_weight(5, 64, 32)
    merged = Int4Weight.cat([first, second])
    parts = [first.dequantize(torch.float32), second.dequantize(torch.float32)]
    assert torch.equal(merged.dequantize(torch.float32), torch.cat(parts))


def test_weights_of_different_groups_cannot_be_merged():
    with pytest.raises(ValueError, match=r"\(64, 32\), \(64, 64\)"):
        Int4Weight.cat([make_weight(3, 64, 32), make_weight(5, 64, 64)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 17, 64])
@pytest.mark.parametrize(
    ("n", "k", "group_size"), [(64, 128, 32), (192, 256, 64), (16, 256, 128), (80, 512, 512)]
)
def test_product_equals_float64(kernels, n: int, k: int, group_size: int, rows: int, dtype: torch.dtype):
    weight = make_weight(n, k, group_size)
    x, bias = torch.randn(rows, k).to(dtype), torch.randn(n).to(dtype)
    packed = kernels.pack_int4(weight, dtype)
    assert_close("int4_linear", kernels.int4_linear(x, packed, None), exact_product(x, weight).to(dtype))
    assert_close(
        "int4_linear", kernels.int4_linear(x, packed, bias), exact_product(x, weight, bias).to(dtype)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 17, 64])
@pytest.mark.parametrize(
    ("n", "k", "group_size"), [(1, 64, 32), (37, 96, 96), (1000, 96, 32), (130, 60, 20), (7, 2, 2)]
)
def test_awkward_sizes(kernels, n: int, k: int, group_size: int, rows: int, dtype: torch.dtype):
    weight = make_weight(n, k, group_size)
    x = torch.randn(rows, k).to(dtype)
    packed = kernels.pack_int4(weight, dtype)
    assert (n, k) == (packed.N, packed.K)
    assert_close("int4_linear", kernels.int4_linear(x, packed, None), exact_product(x, weight).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_weight_has_its_own_place(kernels: KernelSet, dtype: torch.dtype):
    """With the identity as input, the output is the matrix itself, and a wrong permutation shows."""
    weight = make_weight(192, 256, 64)
    weight = Int4Weight(weight.q, weight.zeros, torch.full_like(weight.scales, 0.125), 64)
    packed = kernels.pack_int4(weight, dtype)
    expected = weight.dequantize(dtype)
    identity = torch.eye(256, dtype=dtype)
    assert torch.equal(kernels.int4_linear(identity, packed, None), expected.T)
    few = 16 if kernels.name == "triton" else 1  # the interpreter takes its time
    few_by_few = [as_tensor(kernels.int4_linear(rows, packed, None)) for rows in identity.split(few)]
    assert torch.equal(torch.cat(few_by_few), expected.T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_may_be_rows_of_a_wider_tensor(kernels: KernelSet, dtype: torch.dtype):
    weight, wide = make_weight(64, 128, 32), torch.randn(5, 200).to(dtype)
    packed = kernels.pack_int4(weight, dtype)
    for rows in (1, 5):
        expected = kernels.int4_linear(wide[:rows, :128].contiguous(), packed, None)
        assert torch.equal(kernels.int4_linear(wide[:rows, :128], packed, None), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_are_held_once_in_four_bits(kernels: KernelSet, dtype: torch.dtype):
    weight = make_weight(256, 1024, 128)
    assert kernels.pack_int4(weight, dtype).nbytes <= 256 * 1024 * (4 + 64 / 128) / 8


def test_threads_do_not_change_the_result_nor_each_other(cpu: KernelSet):
    weight, x, before = (
        make_weight(1024, 4096, 128),
        torch.randn(40, 4096).bfloat16(),
        torch.get_num_threads(),
    )
    packed, results = cpu.pack_int4(weight, torch.bfloat16), []
    try:
        for threads in (1, 2, 3, 9):
            torch.set_num_threads(threads)
            results += [cpu.int4_linear(x, packed, None) for _ in range(3)]
            assert torch.get_num_threads() == threads
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(torch.get_num_threads).result() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


def test_no_rows_give_no_rows(kernels: KernelSet):
    packed = kernels.pack_int4(make_weight(64, 128, 32), torch.bfloat16)
    assert kernels.int4_linear(torch.empty(0, 128, dtype=torch.bfloat16), packed, None).shape == (0, 64)


def test_a_row_that_is_not_finite_spoils_only_itself(kernels: KernelSet):
    for dtype in DTYPES:
        packed = kernels.pack_int4(make_weight(64, 128, 32), dtype)
        x = torch.randn(20, 128).to(dtype)
        x[3] = torch.nan
        finite = kernels.int4_linear(x, packed, None).isfinite().all(dim=1)
        assert finite.tolist() == [row != 3 for row in range(20)]


def test_unfit_arguments_are_named(kernels: KernelSet):
    packed = kernels.pack_int4(make_weight(64, 128, 32), torch.float32)
    with pytest.raises(ValueError, match=r"x must be \[M, 128\].*\[2, 96\]"):
        kernels.int4_linear(torch.ones(2, 96), packed, None)
    with pytest.raises(ValueError, match="float64"):
        kernels.int4_linear(torch.ones(2, 128, dtype=torch.float64), packed, None)
    with pytest.raises(ValueError, match=r"bias must be torch.float32 \[64\]"):
        kernels.int4_linear(torch.ones(2, 128), packed, torch.ones(63))
    with pytest.raises(ValueError, match="float64"):
        kernels.pack_int4(make_weight(64, 128, 32), torch.float64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_size": 48}, "group_size 48 does not divide K 128"),
        ({"zeros": torch.zeros(4, 3, dtype=torch.uint8)}, r"zeros must be uint8 \(4, 4\)"),
        ({"scales": torch.zeros(4, 4)}, r"scales must be float16 \(4, 4\)"),
        ({"q": torch.zeros(4, 64, dtype=torch.int8)}, "q must be uint8"),
    ],
)
def test_an_inconsistent_weight_is_refused(change: dict, message: str):
    good = make_weight(4, 128, 32)
    fields = {"q": good.q, "zeros": good.zeros, "scales": good.scales, "group_size": 32} | change
    with pytest.raises(ValueError, match=message):
        Int4Weight(**fields)
