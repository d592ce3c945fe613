"""8-bit storage of keys and values: what is stored, what comes back, and which caches do not fit together."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from llmcli_kernels.paged_kv import PagedKV, dequantize, quantize

INT8, FP8 = torch.int8, torch.float8_e4m3fn
STORAGES = [INT8, FP8]


def test_int8_by_hand():
    stored, scales = quantize(torch.tensor([[254.0, -254.0, 1.0, 3.0, 5.0, -3.0]]), INT8)
    assert scales.tolist() == [2.0]
    assert stored.tolist() == [[127, -127, 0, 2, 2, -2]]  # 0.5, 1.5, 2.5, -1.5: ties to even


def test_float8_by_hand():
    stored, scales = quantize(torch.tensor([[896.0, -896.0, 34.0, 38.0, 2**-8, 0.0]]), FP8)
    assert scales.tolist() == [2.0]
    assert stored.float().tolist() == [[448.0, -448.0, 16.0, 20.0, 2**-9, 0.0]]  # 17 and 19: ties to even


def test_numbers_that_are_stored_exactly_come_back_as_they_were():
    codes = torch.arange(-127, 128).float() * 0.25
    assert torch.equal(dequantize(*quantize(codes, INT8)), codes)
    codes = torch.arange(256, dtype=torch.uint8).view(FP8).float()
    codes = codes[codes.isfinite()] * 0.25
    assert torch.equal(dequantize(*quantize(codes, FP8)), codes)


@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=9),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_what_comes_back_is_half_a_step_away(numbers: list[float], dtype: torch.dtype):
    x = torch.tensor(numbers).to(dtype)
    amax = x.double().abs().max()
    assume(amax > 2.0**-100)
    for storage in STORAGES:
        error = (dequantize(*quantize(x, storage)).double() - x.double()).abs()
        half_step = amax / 254 if storage == INT8 else (x.double().abs() / 16).maximum(amax / 448 / 1024)
        assert (error <= half_step * (1 + 1e-6)).all()


@pytest.mark.parametrize("storage", STORAGES)
def test_vectors_are_scaled_each_by_itself(storage: torch.dtype):
    x = torch.randn(3, 4, 16) * torch.tensor([1e-6, 1.0, 1e6])[:, None, None]
    stored, scales = quantize(x, storage)
    assert stored.shape == x.shape
    assert scales.shape == (3, 4)
    for i in range(3):
        for j in range(4):
            alone, scale = quantize(x[i, j], storage)
            assert torch.equal(stored[i, j].view(torch.uint8), alone.view(torch.uint8))
            assert scales[i, j] == scale


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_turns_its_whole_vector_into_nan_and_no_other(storage, bad):
    x = torch.randn(3, 8)
    clean = dequantize(*quantize(x, storage))
    x[1, 5] = bad
    back = dequantize(*quantize(x, storage))
    assert back[1].isnan().all()
    assert torch.equal(back[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("storage", STORAGES)
def test_zeros_are_zeros_of_scale_0(storage: torch.dtype):
    stored, scales = quantize(torch.zeros(2, 8), storage)
    assert scales.tolist() == [0.0, 0.0]
    assert (stored.float() == 0).all()
    assert (dequantize(stored, scales) == 0).all()


def test_without_scales_entries_are_widened():
    x = torch.randn(3, 8).bfloat16()
    assert torch.equal(dequantize(x, None), x.float())


def cache(dtype: torch.dtype = INT8, **changes: torch.Tensor | None) -> PagedKV:
    shape = (3, 2, 4, 8)
    parts = {"keys": torch.zeros(shape).to(dtype), "values": torch.zeros(shape).to(dtype)}
    scales = {"key_scales": torch.zeros(3, 2, 4), "value_scales": torch.zeros(3, 2, 4)}
    return PagedKV(**((parts | scales if dtype in STORAGES else parts) | changes))


def test_a_cache_tells_its_sizes():
    kv = cache()
    assert (kv.num_kv_heads, kv.block_size, kv.head_size) == (2, 4, 8)
    assert kv.quantized
    assert cache(FP8).quantized
    assert not cache(torch.float16).quantized


@pytest.mark.parametrize(
    ("dtype", "changes", "message"),
    [
        (INT8, {"values": torch.zeros(3, 2, 4, 9, dtype=INT8)}, "must be alike"),
        (INT8, {"values": torch.zeros(3, 2, 4, 8)}, "must be alike"),
        (INT8, {"keys": torch.zeros(3, 4, 2, 8, dtype=INT8).transpose(1, 2)}, "contiguous"),
        (INT8, {"key_scales": None}, "key_scales belong to int8"),
        (
            INT8,
            {"value_scales": torch.zeros(3, 2, 5)},
            r"value_scales must be contiguous float32 \[3, 2, 4\]",
        ),
        (INT8, {"value_scales": torch.zeros(3, 2, 4).half()}, "value_scales must be contiguous float32"),
        (torch.float16, {"key_scales": torch.zeros(3, 2, 4)}, "the cache is torch.float16"),
    ],
)
def test_parts_that_do_not_fit_are_refused(dtype: torch.dtype, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        cache(dtype, **changes)


@pytest.mark.parametrize("storage", STORAGES)
def test_numbers_too_small_for_a_normal_scale_become_zeros(storage: torch.dtype):
    stored, scales = quantize(torch.tensor([[1e-38, 0.0], [1e-44, -1e-38]]), storage)
    assert scales.tolist() == [0.0, 0.0]
    assert dequantize(stored, scales).tolist() == [[0.0, 0.0], [0.0, 0.0]]
