"""Rotation and cache write within Triton's attention kernel: to the bit what the two kernels do in turn."""

import pytest
import torch
from torch import Tensor

from llmcli_kernels import AttentionBatch, KernelSet
from tests.kernels.bounds import assert_close
from tests.kernels.poison import poison_memory
from tests.kernels.test_attend_kernel import DECODES, AttendCase, assert_same_cache, make

HALF, BF16, INT8, FP8 = torch.float16, torch.bfloat16, torch.int8, torch.float8_e4m3fn


def assert_as_in_turn(case: AttendCase, kernels: KernelSet) -> None:
    kv, expected_kv = case.cache(), case.cache()
    out, expected = case.at_once(kernels, kv), case.in_turn(kernels, expected_kv)
    assert expected.isfinite().all()
    assert torch.equal(out, expected)
    assert_same_cache(kv, expected_kv)


@pytest.mark.parametrize("storage", [None, INT8, FP8])
@pytest.mark.parametrize("dtype", [HALF, BF16, torch.float32])
def test_in_every_type_and_storage(triton, monkeypatch, dtype: torch.dtype, storage) -> None:
    poison_memory(monkeypatch)
    assert_as_in_turn(make(DECODES, dtype=dtype, storage=storage, size=32), triton)


@pytest.mark.parametrize("summands", [2, 3, 8])
@pytest.mark.parametrize("storage", [None, INT8])
def test_summands_are_added_up_first(triton, summands: int, storage) -> None:
    assert_as_in_turn(make(DECODES, dtype=HALF, summands=summands, storage=storage), triton)


@pytest.mark.parametrize(
    ("size", "rotary"), [(16, 8), (24, 24), (64, 64), (80, 32), (80, 80), (96, 96), (256, 256)]
)
def test_head_sizes_and_rotations_of_a_part(triton, monkeypatch, size: int, rotary: int) -> None:
    poison_memory(monkeypatch)
    assert_as_in_turn(make(DECODES, dtype=HALF, size=size, rotary=rotary), triton)


@pytest.mark.parametrize("size", [32, 80])
@pytest.mark.parametrize("storage", [None, FP8])
def test_head_norms(triton, size: int, storage) -> None:
    """Squares are added in another order, so that a last place may differ."""
    case = make(DECODES, dtype=HALF, size=size, summands=2, norm=True, storage=storage)
    kv, expected_kv = case.cache(), case.cache()
    out, expected = case.at_once(triton, kv), case.in_turn(triton, expected_kv)
    assert_close("paged_attention", out, expected)
    if storage is None:
        at = (case.slots // kv.block_size, slice(None), case.slots % kv.block_size)
        assert_close("rope_kv_write_norm", kv.keys[at], expected_kv.keys[at])


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (5, 5), (7, 1), (40, 1), (16, 2)])
def test_groups_of_heads(triton, heads: int, kv_heads: int) -> None:
    assert_as_in_turn(make(DECODES, dtype=HALF, heads=heads, kv_heads=kv_heads, summands=2), triton)


@pytest.mark.parametrize("window", [1, 7, 16, 100])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_windows_and_soft_caps(triton, window: int, softcap: float | None) -> None:
    assert_as_in_turn(make([*DECODES, (1, 150)], dtype=HALF, window=window, softcap=softcap), triton)


@pytest.mark.parametrize("block", [1, 16, 24, 64, 256])
def test_sizes_of_blocks(triton, block: int) -> None:
    assert_as_in_turn(make([*DECODES, (1, 150)], dtype=HALF, block=block, storage=INT8), triton)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 64, 127, 128, 129, 150])
def test_the_new_key_is_the_first_or_the_last_of_a_tile_or_of_a_split(triton, length: int) -> None:
    """One sequence has as many splits as there are programs for it."""
    assert_as_in_turn(make([(1, length)], dtype=HALF, heads=2, kv_heads=1), triton)


@pytest.mark.parametrize("splits", [1, 2, 3, 4, 5, 8])
def test_any_number_of_splits_has_one_that_writes(triton, splits: int) -> None:
    """7 tiles of 16 keys: the last split has as many as the others, fewer, or none."""
    from llmcli_kernels.paged_attention.triton_attention import plan_step
    from llmcli_kernels.paged_attention.triton_call import Call, Heads, Unrotated
    from llmcli_kernels.paged_attention.triton_decode import DecodeConfig, decode

    case = make([(1, 100), (1, 97), (1, 3)], dtype=HALF)
    kv, expected_kv, paged = case.cache(), case.cache(), case.paged
    expected = case.in_turn(triton, expected_kv)
    heads = Heads(case.num_heads, kv.num_kv_heads, kv.head_size, kv.block_size, HALF, HALF, (0, 0))
    plan = plan_step(paged.batch, heads.group, 1)
    assert isinstance(case.qkv, Tensor)
    source = Unrotated(case.qkv.unsqueeze(0), case.table, None)
    out = torch.empty_like(paged.q)
    call = Call(out, kv, heads, plan.sequences, out, paged.scale, None, None, source)
    decode(call, plan.decodes[0], DecodeConfig(16, 16, 2, 2, 2), splits)
    assert_close("paged_attention", out, expected)
    assert_same_cache(kv, expected_kv)


def test_steps_with_prompts_are_done_in_turn(triton) -> None:
    assert_as_in_turn(make([(1, 40), (5, 20), (30, 35)], dtype=HALF, summands=2), triton)


def test_where_all_decode_nothing_is_launched_for_the_rotation(triton, monkeypatch) -> None:
    from llmcli_kernels.paged_attention import triton_attention

    monkeypatch.setattr(triton_attention, "rope_kv_write", lambda *_: pytest.fail("a launch of its own"))
    case = make(DECODES, dtype=HALF)
    case.at_once(triton, case.cache())
    mixed = make([(1, 4), (2, 4)], dtype=HALF)
    with pytest.raises(pytest.fail.Exception, match="a launch of its own"):
        mixed.at_once(triton, mixed.cache())


@pytest.mark.parametrize("lens", [[40, 0, 5], [0, 0, 0]])
def test_a_sequence_that_is_padding_writes_nothing_and_gets_zeros(
    triton, monkeypatch, lens: list[int]
) -> None:
    """Lengths on the device go before those that the launch was made for."""
    poison_memory(monkeypatch)
    case = make([(1, 40), (1, 33), (1, 5)], dtype=HALF, summands=2)
    batch = case.paged.batch
    lengths = torch.tensor(lens, dtype=torch.int32)
    tables = batch.block_tables.to(torch.int32)
    case.paged.batch = AttentionBatch(batch.query_starts, batch.kv_lens, tables, lengths)
    kv, untouched, whole = case.cache(), case.cache(), case.cache()
    out = case.at_once(triton, kv)
    case.paged.batch = batch
    expected = case.in_turn(triton, whole)
    for row, length in enumerate(lens):
        slot = case.slots[row]
        at = (slot // kv.block_size, slice(None), slot % kv.block_size)
        source = whole if length else untouched
        assert torch.equal(kv.keys[at].view(torch.int16), source.keys[at].view(torch.int16))
        assert torch.equal(kv.values[at].view(torch.int16), source.values[at].view(torch.int16))
        assert torch.equal(out[row], expected[row] if length else torch.zeros_like(out[row]))


def test_rows_that_the_batch_does_not_have_are_refused(triton) -> None:
    case = make([(1, 4), (1, 9)], dtype=HALF)
    case.qkv, case.positions, case.slots = case.rows()[:1], case.positions[:1], case.slots[:1]
    with pytest.raises(ValueError, match="q has 1 rows, the batch 2"):
        case.at_once(triton, case.cache())
