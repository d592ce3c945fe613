"""Rotary embedding: by hand, against transformers, partial rotation, strided views."""

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llmcli_kernels import KernelSet
from tests.kernels.bounds import assert_close

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def make_table(positions: int, rotary_size: int) -> Tensor:
    frequencies = 10000.0 ** (-torch.arange(0, rotary_size, 2) / rotary_size)
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=1)


def test_a_quarter_turn_swaps_the_halves(kernels: KernelSet):
    table = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    q = torch.tensor([[[1.0, 2.0, 3.0, 4.0]], [[1.0, 2.0, 3.0, 4.0]]])
    k = q + 10
    kernels.rope(q, k, torch.tensor([0, 1]), table)
    assert q.tolist() == [[[1.0, 2.0, 3.0, 4.0]], [[-3.0, -4.0, 1.0, 2.0]]]
    assert k.tolist() == [[[11.0, 12.0, 13.0, 14.0]], [[-13.0, -14.0, 11.0, 12.0]]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(4, 1, 8), (7, 7, 64), (3, 2, 128)])
def test_rotation_equals_that_of_transformers(
    kernels, heads: int, kv_heads: int, size: int, dtype: torch.dtype
):
    table, positions = make_table(100, size), torch.tensor([5, 0, 99, 42, 42])
    q, k = torch.randn(5, heads, size).to(dtype), torch.randn(5, kv_heads, size).to(dtype)
    cos, sin = (half.repeat(1, 2)[None] for half in table[positions].chunk(2, dim=1))
    both = apply_rotary_pos_emb(q.float().transpose(0, 1)[None], k.float().transpose(0, 1)[None], cos, sin)
    kernels.rope(q, k, positions, table)
    for actual, expected in zip((q, k), both, strict=True):
        assert_close("rope", actual, expected[0].transpose(0, 1).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gap", [0, 1])
def test_views_into_a_merged_row_are_rotated_in_place_and_values_untouched(
    kernels, gap: int, dtype: torch.dtype
):
    row = torch.randn(3, (4 + gap + 2 + 2) * 16).to(dtype)
    before, heads = row.clone(), row.view(3, -1, 16)
    q, k = heads[:, :4], heads[:, 4 + gap : 6 + gap]
    expected_q, expected_k = q.clone(), k.clone()
    positions, table = torch.tensor([3, 1, 2]), make_table(8, 16)
    kernels.rope(expected_q, expected_k, positions, table)
    kernels.rope(q, k, positions, table)
    assert torch.equal(heads[:, :4], expected_q)
    assert torch.equal(heads[:, 4 + gap : 6 + gap], expected_k)
    assert torch.equal(heads[:, 6 + gap :], before.view(3, -1, 16)[:, 6 + gap :])
    assert torch.equal(heads[:, 4 : 4 + gap], before.view(3, -1, 16)[:, 4 : 4 + gap])


def test_partial_rotation_passes_the_rest(kernels: KernelSet):
    q, k = torch.randn(2, 3, 20), torch.randn(2, 1, 20)
    whole_q, whole_k = q.clone(), k.clone()
    inner_q, inner_k = q[..., :8].clone(), k[..., :8].clone()
    positions, table = torch.tensor([6, 7]), make_table(8, 8)
    kernels.rope(q, k, positions, table)
    kernels.rope(inner_q, inner_k, positions, table)
    assert torch.equal(q[..., 8:], whole_q[..., 8:])
    assert torch.equal(k[..., 8:], whole_k[..., 8:])
    assert_close("rope", q[..., :8], inner_q)
    assert_close("rope", k[..., :8], inner_k)


def test_unfit_arguments_are_named(kernels: KernelSet):
    q, k, positions, table = torch.ones(2, 4, 8), torch.ones(2, 1, 8), torch.tensor([0, 1]), make_table(4, 8)
    with pytest.raises(ValueError, match=r"\[2, 1, 6\]"):
        kernels.rope(q, torch.ones(2, 1, 6), positions, table)
    with pytest.raises(ValueError, match="int64"):
        kernels.rope(q, k, positions.int(), table)
    with pytest.raises(ValueError, match="at most 8"):
        kernels.rope(q, k, positions, make_table(4, 10))
    with pytest.raises(IndexError):
        kernels.rope(q, k, positions + 3, table)
