"""4-bit matrices as files have them, and the native kernels that make records of them: the bytes that torch makes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcli_kernels import Int4Columns, Int4Weight, KernelSet, select
from llmcli_kernels.decoder import no_fusion
from llmcli_kernels.int4_linear.forms import Int4Stack
from tests.tiny_models import pack_gemm, pack_gemv, random_quantized

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
SHAPES = [(8, 256), (64, 256), (72, 768), (200, 512), (1096, 1280)]
GROUP_SIZES = (32, 64, 128, 256)


def make_columns(n: int, k: int, group_size: int, order: tuple[int, ...] = ORDER) -> Int4Columns:
    def words(rows: int) -> Tensor:
        return torch.randint(-(2**31), 2**31, (rows, n // 8)).to(torch.int32)

    groups = k // group_size
    return Int4Columns(words(k), words(groups), torch.rand(groups, n).half(), group_size, order)


@pytest.fixture
def records(host: Any) -> Callable[[Any], Tensor]:
    """The records of a matrix in any form."""
    from llmcli_kernels.int4_linear.native.to_records import parts_of, to_records

    return lambda weight: to_records(host, parts_of(weight)).records


@pytest.fixture(params=[1, 2, 3, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def expected(weight: Int4Weight) -> Tensor:
    from llmcli_kernels.int4_linear.native.records import pack

    return pack(weight).records


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_records_of_rows_and_of_columns_are_the_bytes_that_torch_makes(
    records: Callable[[Any], Tensor], n: int, k: int, group_size: int
):
    columns = make_columns(n, k, group_size)
    plain = columns.plain()
    assert torch.equal(records(plain), expected(plain))
    assert torch.equal(records(columns), expected(plain))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group_size", [32, 64, 128, 384])
@pytest.mark.parametrize("form", ["gemm", "gemv"])
def test_records_of_what_a_checkpoint_holds_are_the_matrix_that_was_packed(
    records: Callable[[Any], Tensor], form: str, group_size: int, symmetric: bool
):
    from llmcli.model.formats import awq

    matrix = random_quantized(136, 384, group_size, seed=group_size, symmetric=symmetric)
    parts: dict[str, Any] = (pack_gemm if form == "gemm" else pack_gemv)(matrix)
    read = awq.from_gemm if form == "gemm" else awq.from_gemv
    weight = read(
        parts["qweight"], None if symmetric else parts["qzeros"], parts["scales"].contiguous(), group_size
    )
    q = matrix.q.to(torch.uint8)
    plain = Int4Weight(q[:, 0::2] | q[:, 1::2] << 4, matrix.zeros.to(torch.uint8), matrix.scales, group_size)
    assert torch.equal(records(weight), expected(plain))


@pytest.mark.parametrize("order", [tuple(range(8)), (7, 3, 5, 1, 6, 2, 4, 0)])
def test_any_order_of_the_nibbles_of_a_word_is_understood(
    records: Callable[[Any], Tensor], order: tuple[int, ...]
):
    columns = make_columns(16, 128, 64, order)
    for nibble, column in enumerate(order):
        theirs = (columns.words >> 4 * nibble) & 15
        assert torch.equal(columns.plain().integers()[column::8], theirs.t().to(torch.uint8))
    assert torch.equal(records(columns), expected(columns.plain()))


@pytest.mark.parametrize("sizes", [(64, 64), (128, 64, 72), (64, 8, 64), (24, 40)], ids=str)
def test_a_stack_is_the_matrix_of_all_outputs(records: Callable[[Any], Tensor], sizes: tuple[int, ...]):
    parts = [make_columns(n, 256, 64) for n in sizes]
    whole = Int4Weight.cat([part.plain() for part in parts])
    for stack in (Int4Stack(tuple(parts)), Int4Stack((parts[0], *(part.plain() for part in parts[1:])))):
        assert (stack.N, stack.K, stack.group_size) == (sum(sizes), 256, 64)
        assert torch.equal(stack.plain().q, whole.q)
        assert torch.equal(records(stack), expected(whole))


def test_tensors_that_lie_anywhere_in_a_file_are_read(records: Callable[[Any], Tensor], tmp_path: Path):
    columns = make_columns(64, 128, 64)
    file = tmp_path / "words"
    file.write_bytes(bytes(4) + columns.words.numpy().tobytes())
    mapped = torch.from_file(str(file), size=columns.words.numel() + 1, dtype=torch.int32)[1:].view(128, 8)
    there = Int4Columns(mapped, columns.zeros, columns.scales, 64, ORDER)
    assert torch.equal(records(there), expected(columns.plain()))


@pytest.mark.parametrize("group_size", [32, 128])
def test_every_set_takes_every_form(kernels: KernelSet, group_size: int):
    columns, x = make_columns(64, 256, group_size), torch.randn(3, 256)
    plain = columns.plain()
    products = [
        kernels.int4_linear(x, kernels.pack_int4(weight, torch.float32), None)
        for weight in (Int4Stack((plain, plain)), Int4Stack((columns, columns)), Int4Stack((columns, plain)))
    ]
    alone = kernels.int4_linear(x, kernels.pack_int4(columns, torch.float32), None)
    assert all(torch.equal(product, products[0]) for product in products)
    torch.testing.assert_close(products[0][:, :64], alone)


def test_packed_weights_own_their_memory(kernels: KernelSet):
    weight = make_columns(64, 128, 128).plain()
    x = torch.randn(2, 128)
    packed = kernels.pack_int4(weight, torch.float32)
    before = kernels.int4_linear(x, packed, None)
    weight.q.zero_()
    weight.scales.zero_()
    assert torch.equal(kernels.int4_linear(x, packed, None), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": torch.zeros(128, 8)}, "words must be"),
        ({"words": torch.zeros(128, dtype=torch.int32)}, "no matrix"),
        ({"zeros": torch.zeros(2, 9, dtype=torch.int32)}, "zeros must be"),
        ({"scales": torch.zeros(2, 64)}, "scales must be"),
        ({"group_size": 48}, "groups of 48"),
        ({"order": (0, 1, 2, 3, 4, 5, 6, 6)}, "order must have each"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_columns_that_do_not_hold_together_are_refused(changes: dict[str, Any], message: str):
    columns = make_columns(64, 128, 64)
    fields = {name: getattr(columns, name) for name in ("words", "zeros", "scales", "group_size", "order")}
    with pytest.raises(ValueError, match=f"Int4Columns: .*{message}"):
        Int4Columns(**(fields | changes))


def test_a_stack_of_unlike_parts_is_refused():
    with pytest.raises(ValueError, match="Int4Stack: K and group_size must agree"):
        Int4Stack((make_columns(64, 128, 64), make_columns(64, 256, 64)))


def test_a_weight_in_columns_is_tested_and_packed_natively():
    cpu = select("cpu", "cpu")
    if cpu.fuse_decoder is no_fusion:
        pytest.skip("there are no native kernels for this machine")
    from llmcli_kernels.int4_linear.native.records import PackedRecords

    columns = make_columns(72, 256, 64)
    packed = cpu.pack_int4(columns, torch.bfloat16)
    assert isinstance(packed, PackedRecords)
    assert torch.equal(packed.records, expected(columns.plain()))
