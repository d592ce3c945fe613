"""Paged attention as native kernels: against float64, the same bits in every batch and on every number of threads."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from llmcli_kernels import AttentionBatch, select
from tests.kernels.bounds import assert_close
from tests.kernels.test_paged_attention_kernel import DTYPES, STORAGES, PagedCase

pytest.importorskip("llvmlite")

from llvmlite import ir

from llmcli_kernels.native.host import Host
from llmcli_kernels.native.program import Program
from llmcli_kernels.paged_attention.native import NativePagedAttention, covers, plan, stages
from llmcli_kernels.paged_attention.native.attend import emit_attend
from llmcli_kernels.paged_attention.native.form import Form
from llmcli_kernels.paged_attention.native.merge import emit_merge

BF16 = torch.bfloat16
# Around strips of 32 and 64 and splits of 256 positions; queries of none, one and several tiles.
LENGTHS = [(1, 1), (1, 31), (1, 32), (1, 33), (1, 65), (1, 511), (1, 512), (1, 513), (1, 2000)]
MIXED = [(1, 257), (70, 133), (2, 2), (1, 600), (33, 33), (3, 520), (1, 5), (9, 300)]


class Native:
    """A kernel set of one operation, which never falls back."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.paged_attention = NativePagedAttention(host, _refuse)


def _refuse(*_: object) -> Tensor:
    raise AssertionError("not covered")


@pytest.fixture
def native(host: Host) -> Native:
    return Native(host)


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts torch's number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("storage", [None, *STORAGES])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [None, 1, 40, 300])
def test_all_dtypes_and_storages(native: Native, window: int | None, dtype: torch.dtype, storage):
    case = PagedCase([*LENGTHS, *MIXED], size=64, block=16, dtype=dtype, storage=storage, window=window)
    assert_close("paged_attention", case.run(native), case.expected())


@pytest.mark.parametrize("storage", [None, torch.int8])
@pytest.mark.parametrize("size", [16, 80, 128, 256])
def test_head_sizes(native: Native, size: int, storage: torch.dtype | None):
    case = PagedCase(MIXED, size=size, block=16, dtype=BF16, storage=storage)
    assert_close("paged_attention", case.run(native), case.expected())


@pytest.mark.parametrize("storage", [None, torch.int8])
@pytest.mark.parametrize("block", [4, 8, 32, 128])
def test_block_sizes(native: Native, block: int, storage: torch.dtype | None):
    case = PagedCase([*LENGTHS, *MIXED], size=64, block=block, dtype=BF16, storage=storage, window=70)
    assert_close("paged_attention", case.run(native), case.expected())


@pytest.mark.parametrize("group", [1, 2, 3, 7, 8, 32])
def test_groups_of_heads(native: Native, group: int):
    case = PagedCase(MIXED, heads=2 * group, size=64, block=16, dtype=BF16)
    assert_close("paged_attention", case.run(native), case.expected())


@pytest.mark.parametrize("storage", [None, *STORAGES])
def test_a_sequence_has_the_same_bits_in_any_batch(native: Native, storage: torch.dtype | None):
    case = PagedCase([*LENGTHS, *MIXED], size=64, block=16, dtype=BF16, storage=storage)
    together, batch = case.run(native), case.batch
    q = case.q
    for index, kv_len in enumerate(batch.kv_lens):
        start, stop = batch.query_starts[index : index + 2]
        case.q = q[start:stop]
        case.batch = AttentionBatch((0, stop - start), (kv_len,), batch.block_tables[index : index + 1])
        assert torch.equal(case.run(native), together[start:stop])


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_changes_no_bit(native: Native):
    case = PagedCase([*LENGTHS, *MIXED], size=64, block=16, dtype=BF16)
    results = []
    for number in (1, 2, 3, 4, 2):
        torch.set_num_threads(number)
        results += [case.run(native) for _ in range(3)]
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("part", ["keys", "values"])
@pytest.mark.parametrize("sequence", [3, 1])
def test_what_is_not_a_number_stays_in_its_sequence(native: Native, sequence: int, part: str):
    case = PagedCase(MIXED, size=64, block=16, dtype=BF16)
    clean = case.run(native)
    getattr(case.kv, part)[case.batch.block_tables[sequence, 2], 1, 5, 7] = torch.nan
    out = case.run(native)
    start, stop = case.batch.query_starts[sequence : sequence + 2]
    assert out[stop - 1, 2:].isnan().any()
    others = torch.ones(len(out), dtype=torch.bool)
    others[start:stop] = False
    assert torch.equal(out[others], clean[others])
    assert torch.equal(out[:, :2], clean[:, :2])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("storage", [None, torch.int8])
def test_a_query_that_is_not_finite_spoils_its_own_head_only(native: Native, storage, bad: float):
    case = PagedCase(MIXED, size=64, block=16, dtype=BF16, storage=storage)
    clean = case.run(native)
    case.q[40, 3, 9] = bad
    out = case.run(native)
    assert out[40, 3].isnan().all()
    out[40, 3] = clean[40, 3]
    assert torch.equal(out, clean)


@pytest.mark.parametrize("storage", [None, torch.int8])
def test_many_small_weights_far_from_a_large_one_are_not_lost(native: Native, storage: torch.dtype | None):
    """The first key has 2^18 times the weight of every other; values are 1 from position 64 on, 0 before."""
    case = PagedCase([(1, 4000)], heads=1, kv_heads=1, size=64, block=16, dtype=BF16, storage=storage)
    blocks = case.batch.block_tables[0, :250]
    case.kv.keys[blocks] = torch.zeros((), dtype=case.kv.keys.dtype)
    case.kv.values[blocks[:4]] = torch.zeros((), dtype=case.kv.values.dtype)
    case.kv.values[blocks[4:]] = torch.ones((), dtype=case.kv.values.dtype)
    if storage is not None:
        case.kv.key_scales.fill_(1)
        case.kv.value_scales.fill_(1)
    case.kv.keys[blocks[0], 0, 0, 0] = 1
    case.q.zero_()
    case.q[0, 0, 0] = 18 * math.log(2) / case.scale
    weight = math.exp(case.q[0, 0, 0].item() * case.scale)
    expected = torch.full_like(case.q, 3936 / (3999 + weight))
    assert_close("paged_attention", case.run(native), expected)


def test_queries_may_be_a_view_and_tables_int32(native: Native):
    case = PagedCase(MIXED, size=64, block=16, dtype=BF16)
    expected = case.run(native)
    wide = torch.randn(len(case.q), 7, 64).to(BF16)
    wide[:, 1:5] = case.q
    case.q = wide[:, 1:5]
    case.batch = AttentionBatch(case.batch.query_starts, case.batch.kv_lens, case.batch.block_tables.int())
    out = case.run(native)
    assert out.is_contiguous()
    assert torch.equal(out, expected)


def test_a_program_serves_step_after_step_through_one_block(native: Native):
    """Written once; only the block of the plan changes, and the partial sums' memory is used again."""
    case = PagedCase([*LENGTHS, *MIXED], size=64, block=16, dtype=BF16)
    whole, kv = case.batch, case.kv
    expected, q, out = case.run(native), torch.empty_like(case.q), torch.empty_like(case.q)
    block = torch.zeros(8, dtype=torch.int64)
    layer = stages(
        native.host,
        BF16,
        kv,
        q=q.data_ptr(),
        q_stride=q.stride(0) * 2,
        out=out.data_ptr(),
        num_heads=4,
        scale=case.scale,
        window=None,
        plan_at=block.data_ptr(),
    )
    program, partials = Program(native.host, layer), None
    for first, last in ((0, 17), (5, 9), (9, 17), (0, 1)):
        start, stop = whole.query_starts[first], whole.query_starts[last]
        starts = tuple(at - start for at in whole.query_starts[first : last + 1])
        step = AttentionBatch(starts, whole.kv_lens[first:last], whole.block_tables[first:last])
        made = plan(step, kv_heads=2, group=2, head_size=64, window=None, partials=partials)
        block.copy_(made.block())
        q[: stop - start] = case.q[start:stop]
        program.run()
        assert torch.equal(out[: stop - start], expected[start:stop])
        partials = made.partials


@pytest.mark.parametrize(
    "odd", [{"softcap": 0.7}, {"size": 20}, {"size": 264}, {"block": 2}, {"block": 12}, {"heads": 130}]
)
def test_what_has_no_kernel_goes_to_the_fallback(native: Native, odd: dict):
    operation = NativePagedAttention(native.host, select("cpu", "torch").paged_attention)
    case = PagedCase([(1, 40), (5, 9)], **({"size": 64, "dtype": BF16, "block": 16} | odd))
    assert odd.keys() == {"softcap"} or not covers(native.host.machine, BF16, case.q.shape[1], case.kv)
    out = operation(case.q, case.kv, case.batch, case.scale, case.window, case.softcap)
    assert_close("paged_attention", out, case.expected())


@pytest.mark.parametrize("emit", [emit_attend, emit_merge])
def test_no_loop_makes_room_on_the_stack(host: Host, emit: Callable[[ir.Module, Form], None]):
    module = ir.Module()
    emit(module, Form("bf16", "bf16", 64, "float", host.machine.lanes))
    loops = [block for function in module.functions for block in function.blocks[1:]]
    assert loops
    assert not [it for block in loops for it in block.instructions if it.opname == "alloca"]
