"""What only Triton's paged attention has: splits, plans of a step, tiles of queries, conversions of 8-bit storage."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from llmcli_kernels import AttentionBatch, KernelSet
from llmcli_kernels.gpu import current_gpu
from llmcli_kernels.paged_kv import PagedKV
from llmcli_kernels.tuning import load_table
from tests.kernels import ptx
from tests.kernels.bounds import assert_close
from tests.kernels.interpreter_speed import hasten
from tests.kernels.poison import poison_memory
from tests.kernels.test_paged_attention_kernel import PagedCase

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
hasten()

from llmcli_kernels.paged_attention import triton_decode, triton_prefill, triton_widen  # noqa: E402
from llmcli_kernels.paged_attention.triton_attention import (  # noqa: E402
    StepPlan,
    TritonPagedAttention,
    plan_step,
)
from llmcli_kernels.paged_attention.triton_call import Call, Heads, pieces  # noqa: E402
from llmcli_kernels.paged_attention.triton_decode import DecodeConfig, decode, num_splits  # noqa: E402
from llmcli_kernels.paged_attention.triton_prefill import query_tiles  # noqa: E402

HALF, BF16, FP8 = torch.float16, torch.bfloat16, torch.float8_e4m3fn
TILE = 16
CONFIG = DecodeConfig(columns=16, tile=TILE, num_warps=2, num_stages=2, programs_per_sm=2)
UNEVEN = [(1, 1), (1, 15), (1, 16), (3, 17), (1, 100), (9, 150), (2, 64)]
EACH_KIND = [(1, 150), (3, 20), (20, 140)]
ANYTHING = 2**31 - 1


@pytest.fixture
def attention(triton_device: str) -> SimpleNamespace:
    """A kernel set of this one operation."""
    gpu = current_gpu()
    return SimpleNamespace(paged_attention=TritonPagedAttention(load_table(gpu.capability), gpu))


def split_decode(case: PagedCase, splits: int, lens: list[int] | None = None) -> Tensor:
    """All sequences of a case through the decode kernel, in one launch."""
    heads = Heads(
        case.q.shape[1],
        case.kv.num_kv_heads,
        case.kv.head_size,
        case.kv.block_size,
        case.q.dtype,
        case.kv.keys.dtype,
        (0, 0),
    )
    sequences = plan_step(case.batch, heads.group, 1).sequences
    if lens is not None:
        sequences.kv_lens.copy_(torch.tensor(lens))
    queries = max(len(q) for q, _, _ in case.sequences)
    everyone = torch.arange(len(case.sequences), dtype=torch.int32)
    launch = triton_decode.DecodeLaunch(everyone, queries, max(case.batch.kv_lens))
    call = Call(
        case.q, case.kv, heads, sequences, torch.empty_like(case.q), case.scale, case.window, case.softcap
    )
    decode(call, launch, CONFIG, splits)
    return call.out


@pytest.mark.parametrize("dtype", [HALF, BF16])
@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("splits", [1, 3, 8])
def test_any_number_of_splits_gives_the_answer_and_idle_ones_write_nothing(
    triton_device, monkeypatch, splits: int, window: int | None, dtype: torch.dtype
):
    case = PagedCase(UNEVEN, dtype=dtype, window=window)
    poison_memory(monkeypatch)
    assert_close("paged_attention", split_decode(case, splits), case.expected())


def test_more_splits_than_are_combined_at_once(triton_device, monkeypatch):
    case = PagedCase([(1, 40 * TILE), (1, 5 * TILE + 1)], heads=8, kv_heads=1, dtype=HALF)
    poison_memory(monkeypatch)
    assert_close("paged_attention", split_decode(case, splits=40), case.expected())


@pytest.mark.parametrize("splits", [1, 3])
def test_a_sequence_that_is_padding_gets_zeros(triton_device, monkeypatch, splits: int):
    case = PagedCase([(1, 40), (1, 33), (1, 5)], dtype=HALF)
    poison_memory(monkeypatch)
    out = split_decode(case, splits, lens=[40, 0, 5])
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    assert_close("paged_attention", out[::2], case.expected()[::2])


def test_the_bits_are_the_same_every_time(triton_device):
    case = PagedCase(UNEVEN, dtype=HALF)
    first = split_decode(case, splits=5)
    assert torch.equal(split_decode(case, splits=5), first)


@pytest.mark.parametrize("window", [None, 9])
def test_numbers_of_blocks_that_no_query_sees_are_not_looked_up(attention, window: int | None):
    case = PagedCase(EACH_KIND, dtype=HALF, window=window)
    tables = torch.full_like(case.batch.block_tables, ANYTHING)
    for number, (queries, kv_len) in enumerate(EACH_KIND):
        first = 0 if window is None else max(0, kv_len - queries - window + 1)
        seen = slice(first // 8, math.ceil(kv_len / 8))
        tables[number, seen] = case.batch.block_tables[number, seen]
    case.batch = AttentionBatch(case.batch.query_starts, case.batch.kv_lens, tables)
    assert_close("paged_attention", case.run(attention), case.expected())


@pytest.mark.parametrize("size", [8, 24, 72, 80, 96, 112, 256])
def test_head_sizes_that_are_no_powers_of_two_are_padded_or_in_two_pieces(attention, monkeypatch, size: int):
    case = PagedCase(EACH_KIND, dtype=HALF, size=size, block=16)
    poison_memory(monkeypatch)
    assert_close("paged_attention", case.run(attention), case.expected())


@pytest.mark.parametrize("storage", [torch.int8, FP8])
@pytest.mark.parametrize(("size", "dtype"), [(64, HALF), (80, BF16), (48, HALF)])
def test_8_bit_storage_is_computed_in_16_bits(attention, size: int, dtype: torch.dtype, storage: torch.dtype):
    case = PagedCase(EACH_KIND, dtype=dtype, size=size, block=16, storage=storage)
    assert_close("paged_attention", case.run(attention), case.expected())


@pytest.mark.parametrize("block", [1, 16, 24, 32, 64, 128, 256])
def test_blocks_smaller_and_larger_than_a_tile(attention, block: int):
    case = PagedCase(EACH_KIND, dtype=HALF, block=block, window=130)
    assert_close("paged_attention", case.run(attention), case.expected())


@pytest.mark.parametrize("group", [1, 5, 7, 8, 40, 71])
def test_the_heads_of_a_group_are_one_operand_or_several(attention, monkeypatch, group: int):
    case = PagedCase(EACH_KIND, dtype=HALF, heads=group, kv_heads=1)
    poison_memory(monkeypatch)
    assert_close("paged_attention", case.run(attention), case.expected())


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("window", [None, 5, 128, 150])
@pytest.mark.parametrize("storage", [None, torch.int8])
def test_prefill_masks_only_the_edges(attention, monkeypatch, storage, window: int | None, softcap):
    """Tiles of keys before, at and behind the window's edge and the diagonal; tiles of 32 queries and one more."""
    sequences = [(33, 33), (40, 300), (32, 512), (17, 17)]
    case = PagedCase(sequences, heads=8, dtype=HALF, window=window, softcap=softcap, storage=storage)
    poison_memory(monkeypatch)
    assert_close("paged_attention", case.run(attention), case.expected())


@pytest.mark.parametrize("factor", [2.0**-12, 2.0**12])
@pytest.mark.parametrize("storage", [torch.int8, FP8])
def test_value_scales_may_be_too_small_for_float16(attention, storage: torch.dtype, factor: float):
    case = PagedCase(EACH_KIND, dtype=HALF, storage=storage)
    case.kv.value_scales.mul_(factor)
    case.sequences = [(q, k, v * factor) for q, k, v in case.sequences]
    assert_close("paged_attention", case.run(attention), case.expected())


@pytest.mark.parametrize("queries", [1, 20])
def test_a_value_of_zeros_has_a_scale_of_0_and_still_its_share(attention, queries: int):
    case = PagedCase([(queries, 30)], dtype=HALF, storage=torch.int8)
    block, offset = case.batch.block_tables[0, 1], 3
    case.kv.values[block, :, offset] = 0
    case.kv.value_scales[block, :, offset] = 0.0
    case.sequences[0][2][8 + offset] = 0.0
    assert_close("paged_attention", case.run(attention), case.expected())


def test_a_value_that_is_not_a_number_is_seen(attention):
    case = PagedCase([(1, 40), (20, 40), (1, 40)], dtype=HALF)
    case.kv.values[case.batch.block_tables[0, 2], 1, 4, 3] = torch.nan
    case.kv.keys[case.batch.block_tables[1, 2], 0, 4, 3] = torch.nan
    finite = case.run(attention).isfinite().all(dim=-1)
    assert finite[0].tolist() == [True, True, False, False]
    assert not finite[1:21, :2].any()
    assert finite[1:21, 2:].all()
    assert finite[21].all()


@triton.jit
def _widened(words_ptr, low_ptr, high_ptr, N: tl.constexpr, STORAGE: tl.constexpr, CONVERT: tl.constexpr):
    at = tl.arange(0, N)
    low, high = triton_widen.widen(tl.load(words_ptr + at), STORAGE, CONVERT, low_ptr.dtype.element_ty)
    tl.store(low_ptr + at, low)
    tl.store(high_ptr + at, high)


def every_pair_of_bytes() -> Tensor:
    return torch.arange(-(2**15), 2**15).to(torch.int16)


def assert_stored(words: Tensor, storage: torch.dtype, low: Tensor, high: Tensor) -> None:
    """low and high are what the bytes of words stand for, but for the NaN of float8, which is never stored."""
    expected = words.view(storage).view(-1, 2).double()
    is_number = ~expected.isnan()
    assert torch.equal(torch.stack([low, high], dim=1).double()[is_number], expected[is_number])


@pytest.mark.parametrize("dtype", [HALF, BF16, torch.float32])
@pytest.mark.parametrize(("storage", "name"), [(torch.int8, "int8"), (FP8, "fp8")])
@pytest.mark.parametrize("conversion", [0, 80, 89])
def test_every_byte_becomes_its_number(triton_device, conversion, storage, name: str, dtype: torch.dtype):
    gpu = current_gpu()
    known = gpu.nvidia and dtype != torch.float32 and gpu.capability >= divmod(conversion, 10)
    if conversion and not known:
        pytest.skip("assembly runs on a GPU that has it, in 16 bits")
    words = every_pair_of_bytes()
    found = torch.empty(2, len(words), dtype=dtype)
    _widened[(1,)](words, found[0], found[1], N=len(words), STORAGE=name, CONVERT=conversion)
    assert_stored(words, storage, *found)


@pytest.mark.parametrize(
    ("text", "storage", "dtype"),
    [
        (triton_widen.INT8_FLOAT16_ASM, torch.int8, HALF),
        (triton_widen.INT8_BFLOAT16_ASM, torch.int8, BF16),
        (triton_widen.FP8_FLOAT16_ASM, FP8, HALF),
        (triton_widen.FP8_FLOAT16_SM89_ASM, FP8, HALF),
        (triton_widen.FP8_BFLOAT16_ASM, FP8, BF16),
    ],
)
def test_the_assembly_makes_every_byte_its_number(text, storage: torch.dtype, dtype: torch.dtype):
    first = every_pair_of_bytes()
    second = first[torch.randperm(len(first))]
    plain = text.value.replace(
        "mov.b32 {even, odd}, sorted", "cvt.u16.u32 even, sorted; shr.u32 odd, sorted, 16"
    )
    outputs = ptx.run(plain, [ptx.words_of(first, second)], 2)
    low, high = (ptx.halves(output, dtype) for output in outputs)
    assert_stored(first, storage, low[0], high[0])
    assert_stored(second, storage, low[1], high[1])


def plan_of(queries: list[int], lens: list[int], group: int, tokens: int) -> StepPlan:
    starts = tuple(np.cumsum([0, *queries]).tolist())
    return plan_step(AttentionBatch(starts, tuple(lens), torch.zeros(len(lens), 2).long()), group, tokens)


def test_sequences_go_to_a_kernel_by_how_many_queries_they_have(triton_device):
    plan = plan_of([1, 20, 16, 1, 2, 17], [9, 20, 30, 50, 40, 17], group=4, tokens=8)
    assert [launch.chosen.tolist() for launch in plan.decodes] == [[0, 3], [2, 4]]
    assert [(launch.max_queries, launch.longest) for launch in plan.decodes] == [(1, 50), (16, 40)]
    assert plan.tiles is not None
    assert plan.tiles.tolist() == [[1, 16], [5, 16], [1, 8], [5, 8], [1, 0], [5, 0]]
    assert plan.sequences.query_starts.tolist() == [0, 1, 21, 37, 38, 40, 57]
    assert plan.sequences.kv_lens.tolist() == [9, 20, 30, 50, 40, 17]
    assert {part.dtype for part in vars(plan.sequences).values()} == {torch.int32}


def test_few_queries_of_many_heads_are_too_many_columns_for_decode(triton_device):
    plan = plan_of([1, 9, 8], [9, 20, 30], group=16, tokens=8)
    assert [launch.chosen.tolist() for launch in plan.decodes] == [[0], [2]]
    assert plan.tiles is not None
    assert plan.tiles.tolist() == [[1, 8], [1, 0]]


def test_tiles_that_see_the_most_keys_come_first():
    assert query_tiles([(4, 5, 100), (7, 3, 101)], 4) == [(7, 0), (4, 4), (4, 0)]


@pytest.mark.parametrize(
    ("programs", "keys", "splits"),
    [(1, 10_000, 200), (150, 10_000, 2), (200, 10_000, 1), (10_000, 10_000, 1), (1, 33, 3), (1, 16, 1)],
)
def test_splits_fill_the_gpu_and_have_a_tile_each(programs: int, keys: int, splits: int):
    assert num_splits(CONFIG, programs, 100, keys) == splits


@pytest.mark.parametrize(
    ("words", "widths"),
    [
        (1, (16, 0)),
        (24, (32, 0)),
        (40, (32, 16)),
        (64, (64, 0)),
        (80, (64, 16)),
        (96, (64, 32)),
        (120, (128, 0)),
    ],
)
def test_a_row_is_in_pieces_whose_widths_are_powers_of_two(words: int, widths: tuple[int, int]):
    assert pieces(words) == widths


def test_layers_share_the_plan_of_a_step(attention):
    case = PagedCase(EACH_KIND, dtype=HALF)
    case.run(attention)
    (plan,) = case.batch.plans.values()
    case.softcap = 2.0
    case.run(attention)
    assert [*case.batch.plans.values()] == [plan]


def test_lengths_and_blocks_may_change_under_a_plan(attention, reference: KernelSet):
    """As when a captured graph is replayed: only what lies on the device is different."""
    case = PagedCase([(1, 60), (1, 9), (1, 31)], dtype=HALF)
    case.run(attention)
    (plan,) = case.batch.plans.values()
    lens, tables = (17, 9, 30), case.batch.block_tables.clone()
    tables[2] = tables[0]
    later = AttentionBatch(case.batch.query_starts, lens, tables)
    plan.sequences.kv_lens.copy_(torch.tensor(lens))
    plan.sequences.block_tables.copy_(tables)
    expected = reference.paged_attention(case.q, case.kv, later, case.scale, None, None)
    assert_close("paged_attention", case.run(attention), expected)


def test_lengths_on_the_device_are_those_that_count(attention, reference: KernelSet):
    """As in a captured graph: kv_lens are only the most there may be, and a row may have no keys at all."""
    case = PagedCase([(1, 60), (1, 9), (1, 31)], dtype=HALF)
    given = case.batch
    lengths = torch.tensor(given.kv_lens, dtype=torch.int32)
    case.batch = AttentionBatch(
        given.query_starts, (64,) * 3, given.block_tables.to(torch.int32), lengths=lengths
    )
    for lens in ((60, 9, 31), (17, 9, 30), (1, 2, 31)):
        lengths.copy_(torch.tensor(lens))
        now = AttentionBatch(given.query_starts, lens, given.block_tables)
        expected = reference.paged_attention(case.q, case.kv, now, case.scale, None, None)
        assert_close("paged_attention", case.run(attention), expected)
    lengths[1] = 0
    assert not case.run(attention)[1].any()


def test_what_the_kernels_can_not_do_is_refused(attention):
    kv = PagedKV(*torch.zeros(2, 1, 1, 4, 3, dtype=torch.int8), *torch.ones(2, 1, 1, 4))
    batch = AttentionBatch((0, 1), (1,), torch.zeros(1, 1, dtype=torch.int64))
    q = torch.zeros(1, 1, 3)
    with pytest.raises(ValueError, match="in 8 bits the head size must be even, got 3"):
        attention.paged_attention(q, kv, batch, 1.0, None, None)
    plain = PagedKV(kv.keys.float(), kv.values.float())
    with pytest.raises(ValueError, match="scale must be above 0, got -1"):
        attention.paged_attention(q, plain, batch, -1.0, None, None)


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (12, 0)])
@pytest.mark.parametrize(
    ("module", "operation"),
    [(triton_decode, "attention_decode"), (triton_prefill, "attention_prefill")],
)
def test_every_row_of_the_tuning_table_is_compiled_ahead_of_time(module, operation: str, capability):
    table = load_table(capability)
    variants = [
        variant for variant in module.aot_variants(capability, table) if "STAGES" in variant.constants
    ]
    compiled = {(v.constants["T"], v.num_warps, (v.constants["STAGES"] + 1) // 2) for v in variants}
    rows = {(row["T"], row["num_warps"], row["num_stages"]) for row in table.configs(operation)}
    assert compiled == rows
