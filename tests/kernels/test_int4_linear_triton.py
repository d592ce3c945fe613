"""The Triton int4 kernels: every encoding, tile and share of k against the exact product, and the way of each size."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from llmcli_kernels import Int4Weight
from llmcli_kernels.activations import Partials, as_tensor
from llmcli_kernels.gpu import INTERPRETER
from llmcli_kernels.int4_linear import triton_linear
from llmcli_kernels.int4_linear.triton_layout import to_tiles
from llmcli_kernels.int4_linear.triton_linear import SPLITS, TritonInt4Linear, Unpack, num_shares
from llmcli_kernels.int4_linear.triton_skinny import launch_skinny
from llmcli_kernels.int4_linear.triton_wide import launch_wide
from llmcli_kernels.tuning import load_table
from tests.kernels.bounds import assert_close
from tests.kernels.conftest import HAS_GPU
from tests.kernels.test_int4_linear_kernel import exact_product, make_weight

ENCODINGS = {
    "subnormal": (torch.float16, True),
    "float16": (torch.float16, False),
    "bfloat16": (torch.bfloat16, False),
}
SHAPES = [(100, 256, 128), (192, 384, 64), (37, 128, 32), (130, 512, 256)]

pytestmark = pytest.mark.usefixtures("triton_device")


def poisoned(split: int, rows: int, n: int) -> tuple[Tensor, Tensor]:
    """parts [split, rows, n] and what lies behind them, all NaN."""
    room = torch.full((split * rows * n + 1000,), torch.nan)
    return room[: split * rows * n].view(split, rows, n), room[split * rows * n :]


def poisoned_rows(rows: int, k: int, dtype: torch.dtype) -> Tensor:
    """x [rows, k] that NaN follows in memory."""
    room = torch.full((rows + 40, k), torch.nan, dtype=dtype)
    room[:rows] = torch.randn(rows, k)
    return room[:rows]


def skinny(
    x: Tensor, weight: Int4Weight, bias: Tensor | None, *, split=1, columns=64, subnormal=False
) -> Tensor:
    parts, behind = poisoned(split, x.shape[0], weight.N)
    launch_skinny(
        x,
        to_tiles(weight),
        bias,
        parts,
        BN=columns,
        subnormal=subnormal,
        asm=HAS_GPU,
        num_warps=columns // 64,
        num_stages=4,
    )
    assert behind.isnan().all()
    return parts.double().sum(dim=0).float()


def wide(
    x: Tensor, weight: Int4Weight, bias: Tensor | None, *, split=1, columns=128, one_dot=False
) -> Tensor:
    parts, behind = poisoned(split, x.shape[0], weight.N)
    launch_wide(
        x,
        to_tiles(weight),
        bias,
        parts,
        BM=32,
        BN=columns,
        GM=2,
        one_dot=one_dot,
        asm=HAS_GPU,
        num_warps=4,
        num_stages=3,
    )
    assert behind.isnan().all()
    return parts.double().sum(dim=0).float()


def rounded_once(weight: Int4Weight, dtype: torch.dtype) -> Tensor:
    """The weights that the wide kernel is to make, float64: float16's are AutoAWQ's to the bit."""
    grouped = weight.integers().view(weight.N, -1, weight.group_size).double()
    exact = (grouped - weight.zeros.unsqueeze(-1)) * weight.scales.to(dtype).unsqueeze(-1).double()
    return exact.view(weight.N, weight.K).to(dtype).double()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("n", "k", "group_size"), SHAPES)
@pytest.mark.parametrize(("rows", "split", "columns"), [(1, 3, 64), (3, 1, 128), (8, 7, 64), (17, 2, 128)])
def test_few_rows_equal_the_exact_product(n, k, group_size, rows, split, columns, encoding):
    dtype, subnormal = ENCODINGS[encoding]
    weight, x, bias = make_weight(n, k, group_size), poisoned_rows(rows, k, dtype), torch.randn(n).to(dtype)
    y = skinny(x, weight, bias, split=split, columns=columns, subnormal=subnormal)
    assert_close(f"int4_skinny_{encoding}", y, exact_product(x, weight, bias).float())


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("rows", [8, 9, 16, 32])
def test_blocks_of_rows_may_be_full_or_not(rows: int, encoding: str):
    dtype, subnormal = ENCODINGS[encoding]
    weight, x = make_weight(64, 128, 128), poisoned_rows(rows, 128, dtype)
    y = skinny(x, weight, None, subnormal=subnormal)
    assert_close(f"int4_skinny_{encoding}", y, exact_product(x, weight).float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("n", "k", "group_size"), SHAPES)
@pytest.mark.parametrize(
    ("rows", "split", "columns", "one_dot"), [(33, 1, 128, True), (70, 3, 64, False), (17, 5, 64, True)]
)
def test_many_rows_are_multiplied_with_weights_rounded_once(
    n, k, group_size, rows, split, columns, one_dot, dtype
):
    weight, x, bias = make_weight(n, k, group_size), poisoned_rows(rows, k, dtype), torch.randn(n).to(dtype)
    y = wide(x, weight, bias, split=split, columns=columns, one_dot=one_dot)
    expected = x.double() @ rounded_once(weight, dtype).T + bias.double()
    assert_close("int4_wide", y, expected.float())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_large_zeros_negative_scales_and_subnormal_inputs_count(encoding: str):
    dtype, subnormal = ENCODINGS[encoding]
    weight = make_weight(64, 256, 128)
    weight.scales[::2] *= -1
    weight.scales[:, 1] = 2.0**-24
    weight.zeros[:32] = 16
    x = torch.randn(4, 256).to(dtype)
    x[1] *= 2.0**-20
    y = skinny(x, weight, None, subnormal=subnormal)
    expected = exact_product(x, weight).float()
    for row in range(4):
        assert_close(f"int4_skinny_{encoding}", y[row], expected[row])


@pytest.mark.parametrize("multiply", [skinny, wide])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_same_bits_come_every_time(multiply, dtype: torch.dtype):
    weight, x = make_weight(130, 512, 128), torch.randn(16, 512).to(dtype)
    first = multiply(x, weight, None, split=4)
    assert torch.equal(multiply(x, weight, None, split=4), first)


@pytest.mark.skipif(HAS_GPU, reason="replaces the interpreter's products")
def test_subnormal_weights_stand_tensor_cores_that_cut_off(monkeypatch):
    """With inputs of one sign, the offset of the other encoding costs bits where sums are cut off, not rounded."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def create_dot(self, a, b, d, *_):
        terms = a.data.astype("f8").T[:, :, None] * b.data.astype("f8")[:, None, :]
        return TensorHandle(cut_off_sums(d.data.astype("f8"), terms).astype("f4"), d.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
    weight, x = make_weight(64, 1024, 128), torch.rand(2, 1024).half()
    expected = exact_product(x, weight).float()
    assert_close("int4_skinny_cut_off", skinny(x, weight, None, subnormal=True), expected)
    assert_close("int4_skinny_cut_off", skinny(x, weight, None).half(), expected.half())


def cut_off_sums(total, terms):
    """total + terms.sum(0), eight at a time, each cut to 24 bits of the largest: worse than what tensor cores do."""
    numpy = pytest.importorskip("numpy")
    for first in range(0, len(terms), 8):
        together = numpy.concatenate([total[None], terms[first : first + 8]])
        largest = numpy.abs(together).max(axis=0).clip(1e-300)
        quantum = numpy.exp2(numpy.floor(numpy.log2(largest)) - 23)
        total = (numpy.trunc(together / quantum) * quantum).sum(axis=0)
    return total


def make_linear(unpack: Unpack | None = None) -> TritonInt4Linear:
    table = load_table((9, 0))
    if HAS_GPU:
        return TritonInt4Linear(table, INTERPRETER, unpack or Unpack(asm=True, subnormal=True))
    return TritonInt4Linear(table, INTERPRETER, unpack or Unpack(asm=False, subnormal=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [1, 16, 17, 33, 70, 1025])
@pytest.mark.parametrize(("n", "k", "group_size"), [(130, 256, 64), (70, 96, 96)])
def test_every_number_of_rows_has_a_way(n: int, k: int, group_size: int, rows: int, dtype: torch.dtype):
    linear, weight = make_linear(), make_weight(n, k, group_size)
    x, bias = torch.randn(rows, k).to(dtype), torch.randn(n).to(dtype)
    packed = linear.pack_int4(weight, dtype)
    assert (n, k) == (packed.N, packed.K)
    y = as_tensor(linear(x, packed, bias))
    assert_close("int4_linear_triton", y, exact_product(x, weight, bias).to(dtype))


def test_few_rows_of_a_deep_matrix_come_as_summands():
    linear, weight, x = make_linear(), make_weight(64, 1024, 128), torch.randn(40, 1024).half()
    packed = linear.pack_int4(weight, torch.float16)
    for rows in (1, 16, 32):
        y = linear(x[:rows], packed, None)
        assert isinstance(y, Partials)
        assert y.parts.shape == (2, rows, 64)
        assert (y.parts.dtype, y.dtype) == (torch.float32, torch.float16)
    added_up = linear(x, packed, None)
    assert isinstance(added_up, Tensor)
    assert_close("int4_linear_triton", added_up, exact_product(x, weight).half())


@pytest.mark.parametrize(("n", "k", "group_size"), [(300, 128, 32), (300, 96, 32)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_large_matrix_is_dequantized_in_panels(monkeypatch, n, k, group_size, dtype: torch.dtype):
    weight, x, bias = make_weight(n, k, group_size), torch.randn(1030, k).to(dtype), torch.randn(n).to(dtype)
    whole = make_linear()
    expected = whole(x, whole.pack_int4(weight, dtype), bias)
    monkeypatch.setattr(triton_linear, "PANEL_BYTES", 128 * k * dtype.itemsize)
    linear = make_linear()
    for _ in range(2):
        assert_close("int4_linear_triton", linear(x, linear.pack_int4(weight, dtype), bias), expected)
    assert linear.panel_bytes <= 128 * k * dtype.itemsize


@pytest.mark.parametrize("blocks", [1, 2, 30, 64, 96, 224, 448, 1000, 5000])
@pytest.mark.parametrize("num_tiles", [1, 3, 32, 112, 500])
def test_shares_of_k_fill_the_gpu_once(blocks: int, num_tiles: int):
    shares = num_shares(blocks, num_tiles, 1056)
    assert shares in SPLITS
    assert shares == 1 or shares * blocks <= 1056
    assert shares == 1 or num_tiles // shares >= 4
    more = next((split for split in SPLITS if split > shares), None)
    assert more is None or more * blocks > 1056 or num_tiles // more < 4


def test_llama_layers_give_every_processor_of_an_h200_four_programs():
    for n, k in ((6144, 4096), (12288, 4096), (28672, 4096), (4096, 14336), (22016, 4096)):
        blocks = n // 64
        assert num_shares(blocks, k // 128, 8 * 132) * blocks >= 4 * 132
