"""Cache writes: every element of the cache is either the token's own or untouched."""

import pytest
import torch

from llmcli_kernels import KernelSet

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slots", [[0], [5, 4, 19], [3, 4, 5, 6, 7, 8], list(range(20))])
def test_tokens_land_in_their_slots_and_nothing_else_changes(kernels, slots: list[int], dtype: torch.dtype):
    block_size, kv_heads, size = 4, 3, 8
    k_cache, v_cache = torch.randn(2, 5, kv_heads, block_size, size).to(dtype).unbind()
    k_cache, v_cache = k_cache.clone(), v_cache.clone()
    expected_k, expected_v = k_cache.clone(), v_cache.clone()
    k, v = torch.randn(2, len(slots), kv_heads, size).to(dtype).unbind()
    for token, slot in enumerate(slots):
        for head in range(kv_heads):
            expected_k[slot // block_size, head, slot % block_size] = k[token, head]
            expected_v[slot // block_size, head, slot % block_size] = v[token, head]
    kernels.kv_write(k, v, k_cache, v_cache, torch.tensor(slots))
    assert torch.equal(k_cache, expected_k)
    assert torch.equal(v_cache, expected_v)


def test_views_into_a_merged_row_are_written(kernels: KernelSet):
    row = torch.randn(3, 6 * 8).view(3, 6, 8)
    k_cache, v_cache = torch.zeros(2, 2, 4, 8), torch.zeros(2, 2, 4, 8)
    kernels.kv_write(row[:, 2:4], row[:, 4:], k_cache, v_cache, torch.tensor([7, 0, 2]))
    assert torch.equal(k_cache[1, :, 3], row[0, 2:4])
    assert torch.equal(v_cache[0, :, 0], row[1, 4:])
    assert torch.equal(v_cache[0, :, 2], row[2, 4:])


def test_a_slot_past_the_end_is_an_error(kernels: KernelSet):
    k, cache = torch.ones(1, 1, 2), torch.zeros(2, 1, 4, 2)
    with pytest.raises(IndexError):
        kernels.kv_write(k, k, cache, cache.clone(), torch.tensor([8]))


def test_unfit_arguments_are_named(kernels: KernelSet):
    k, cache, slots = torch.ones(1, 3, 2), torch.zeros(2, 3, 4, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="heads x size"):
        kernels.kv_write(torch.ones(1, 4, 2), torch.ones(1, 4, 2), cache, cache, slots)
    with pytest.raises(ValueError, match="bfloat16"):
        kernels.kv_write(k.bfloat16(), k.bfloat16(), cache, cache, slots)
    with pytest.raises(ValueError, match="contiguous"):
        kernels.kv_write(k, k, cache.transpose(1, 2), cache.transpose(1, 2), slots)
    with pytest.raises(ValueError, match="slots must be int64"):
        kernels.kv_write(k, k, cache, cache, slots.int())
