"""The native write: the reference's bits, what a row's bits depend on, odd numbers, and what it leaves to torch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcli_kernels import KernelSet, select
from llmcli_kernels.paged_kv import PagedKV
from tests.kernels.bounds import assert_close
from tests.kernels.test_rope_kv_write_kernel import BLOCK, BLOCKS, DTYPES, STORAGES, Case, at_slots

pytest.importorskip("llvmlite")

from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import words
from llmcli_kernels.native.program import Program
from llmcli_kernels.rope_kv_write.native import NativeRopeKvWrite, covers, stage

MOST_THREADS = 4
SHAPES = [(4, 1, 8, 8), (7, 7, 64, 64), (40, 8, 128, 128), (8, 2, 80, 32), (3, 2, 20, 8), (2, 1, 32, 0)]
NORM = pytest.mark.parametrize("norm", [False, True], ids=["", "norm"])
STORAGE = pytest.mark.parametrize("storage", [None, *STORAGES], ids=["same", "int8", "fp8"])


def no_fallback(*args: object) -> Any:
    raise AssertionError("the native kernel should have done this")


def native(host: Host) -> KernelSet:
    return replace(select("cpu", "reference"), rope_kv_write=NativeRopeKvWrite(host, no_fallback))


@pytest.fixture
def kernels(host: Host) -> KernelSet:
    return native(host)


def bits(kv: PagedKV) -> list[Tensor]:
    """All that the cache holds; NaN equals NaN."""
    parts = (kv.keys, kv.values, kv.key_scales, kv.value_scales)
    return [part.view(torch.uint8).clone() for part in parts if part is not None]


def assert_same_bits(actual: list[Tensor], expected: list[Tensor]) -> None:
    assert all(map(torch.equal, actual, expected))


def assert_reference(case: Case, kernels: KernelSet, storage: torch.dtype | None) -> None:
    """Without a norm: q and the whole cache to the bit."""
    kv, expected = case.cache(storage), case.cache(storage)
    q, expected_q = case.run(kernels, kv), case.run(select("cpu", "reference"), expected)
    assert_same_bits([q.nan_to_num(7.0), *bits(kv)], [expected_q.nan_to_num(7.0), *bits(expected)])


@STORAGE
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "size", "rotary"), SHAPES)
def test_without_a_norm_the_bits_are_the_references(
    kernels: KernelSet, heads, kv_heads, size, rotary, dtype, storage
):
    case = Case(heads=heads, kv_heads=kv_heads, size=size, rotary=rotary or size, dtype=dtype)
    case.table = case.table[:, :rotary].contiguous()
    assert_reference(case, kernels, storage)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "size", "rotary"), SHAPES[:-1])
def test_with_a_norm_heads_are_close_and_v_is_untouched(
    kernels: KernelSet, heads, kv_heads, size, rotary, dtype
):
    case = Case(heads=heads, kv_heads=kv_heads, size=size, rotary=rotary, dtype=dtype, norm=True)
    kv, (q, k, v) = case.cache(), case.expected()
    assert_close("rope_kv_write_norm", case.run(kernels, kv), q)
    assert_close("rope_kv_write_norm", at_slots(kv.keys, case.slots), k)
    assert torch.equal(at_slots(kv.values, case.slots), v)


@pytest.mark.parametrize("storage", STORAGES)
def test_with_a_norm_8_bit_keys_are_those_of_the_plain_ones(kernels: KernelSet, storage: torch.dtype):
    case = Case(size=32, dtype=torch.bfloat16, norm=True)
    plain, kv, expected = case.cache(), case.cache(storage), case.cache(storage)
    case.run(kernels, plain)
    case.run(kernels, kv)
    k, v = (at_slots(part, case.slots).flatten(1) for part in (plain.keys, plain.values))
    case.qkv[:, 4 * 32 :], case.norm = torch.cat((k, v), dim=1), None
    case.table[:, :16], case.table[:, 16:] = 1.0, 0.0
    case.run(select("cpu", "reference"), expected)
    assert_same_bits(bits(kv), bits(expected))


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_heads_are_stored_in_8_bits_as_the_reference_stores_them(kernels: KernelSet, dtype, storage):
    """Zeros, infinities, NaN, a scale that would be subnormal, one that just is not, halves between steps."""
    case = Case(tuple(range(9)), heads=1, kv_heads=1, size=32, dtype=dtype)
    k, v = (case.qkv[:, at : at + 32] for at in (32, 64))
    for head in (k, v):
        head[0], head[1, 3], head[2, 31], head[3, 17] = 0, torch.nan, torch.inf, -torch.inf
        head[4], head[5], head[6] = head[4] * 1e-38, head[5] * 1e-36, head[6] * 1e4
        head[7] = torch.arange(32) - 15.5
        head[7, 0] = torch.tensor(127.0 if storage == torch.int8 else 448.0)
        head[8] = -head[7]
    case.positions[7:] = 0  # not turned
    assert_reference(case, kernels, storage)


@NORM
@STORAGE
def test_a_row_is_the_same_bits_in_any_batch_with_any_threads_on_both_machines(
    host: Host, code_folder: Path, norm: bool, storage: torch.dtype | None
):
    case = Case(tuple(range(20)), heads=24, kv_heads=6, size=128, dtype=torch.bfloat16, norm=norm)
    threads, kv = torch.get_num_threads(), case.cache(storage)
    expected = [case.run(native(Host(code_folder)), kv), *bits(kv)]
    try:
        for number in range(1, MOST_THREADS + 1):
            torch.set_num_threads(number)
            assert_same_bits(in_batches(case, native(host), storage), expected)
    finally:
        torch.set_num_threads(threads)


def in_batches(case: Case, kernels: KernelSet, storage: torch.dtype | None) -> list[Tensor]:
    """Token 0 alone, then all others."""
    kv, q = case.cache(storage), []
    for rows in (slice(0, 1), slice(1, 20)):
        arguments = (case.qkv[rows].clone(), case.positions[rows], case.slots[rows], case.table)
        q.append(kernels.rope_kv_write(*arguments, kv, case.shape[0], case.norm))
    return [torch.cat(q), *bits(kv)]


def test_q_is_rotated_where_it_lies(kernels: KernelSet):
    case, kv = Case(), Case().cache()
    q = kernels.rope_kv_write(case.qkv, case.positions, case.slots, case.table, kv, 4, None)
    assert q.data_ptr() == case.qkv.data_ptr()
    assert torch.equal(case.qkv[:, :64], q.flatten(1))


def test_a_position_or_slot_out_of_range_is_an_error_and_nothing_is_written(kernels: KernelSet):
    case = Case(slots=(0, 5))
    kv, end = case.cache(), BLOCK * BLOCKS
    for positions, slots, message in (
        ([0, 100], [0, 5], r"position 100 is not in 0\.\.99"),
        ([-1, 1], [0, 5], "position -1"),
        ([0, 1], [0, end], f"slot {end} is not in"),
        ([0, 1], [-2, 5], "slot -2"),
    ):
        with pytest.raises(IndexError, match=message):
            kernels.rope_kv_write(
                case.qkv, torch.tensor(positions), torch.tensor(slots), case.table, kv, 4, None
            )
    assert (kv.keys == 80.0).all()


def test_no_tokens_are_no_work(kernels: KernelSet):
    case = Case(slots=())
    assert case.run(kernels, case.cache()).shape == (0, 4, 16)


@pytest.mark.parametrize(("size", "rotary", "block"), [(16, 16, 3), (18, 8, 4), (16, 6, 4), (1024, 64, 4)])
def test_what_it_does_not_cover_goes_to_the_fallback(host: Host, size: int, rotary: int, block: int):
    kv = PagedKV(*(torch.zeros(2, 1, block, size) for _ in range(2)))
    assert not covers(torch.float32, kv, rotary)
    write = NativeRopeKvWrite(host, lambda *args: args[5])
    at = torch.zeros(1, dtype=torch.int64)
    assert write(torch.zeros(1, 3 * size), at, at, torch.ones(1, rotary), kv, 77, None) == 77


def test_a_program_follows_rows_positions_and_slots(host: Host):
    case = Case(size=64)
    row, kv, step = case.qkv.clone(), case.cache(), words(0, 0, 0)
    at = [step.data_ptr() + 8 * i for i in range(3)]
    write = stage(
        host,
        torch.float32,
        qkv=row.data_ptr(),
        qkv_stride=row.stride(0) * 4,
        positions_at=at[0],
        slots_at=at[1],
        rows_at=at[2],
        cos_sin=case.table,
        kv=kv,
        num_heads=4,
        qk_norm=None,
    )
    program = Program(host, [write])
    for rows in (slice(2, 5), slice(0, 2)):
        positions, slots = case.positions[rows].clone(), case.slots[rows].clone()
        row[: len(slots)] = case.qkv[rows]
        step.copy_(words(positions.data_ptr(), slots.data_ptr(), len(slots)))
        program.run()
        q, _, _ = (part[rows] for part in case.expected())
        assert torch.equal(row[: len(slots), :256], q.flatten(1))
    assert torch.equal(at_slots(kv.keys, case.slots), case.expected()[1])
    assert torch.equal(at_slots(kv.values, case.slots), case.expected()[2])
