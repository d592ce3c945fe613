"""Paged attention against torch's attention on contiguous keys and values, with NaN in unseen slots."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli_kernels import AttentionBatch, KernelSet
from tests.kernels.bounds import assert_close

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
BLOCK = 8


class PagedCase:
    """Sequences of (queries, kv_len) scattered over shuffled blocks of a NaN-filled cache."""

    def __init__(
        self, sequences, heads=4, kv_heads=2, size=16, dtype=torch.float32, window=None, block=BLOCK
    ):
        self.scale, self.window = size**-0.5 * 1.25, window
        tables, self.sequences = [], []
        total_blocks = sum(-(-kv_len // block) for _, kv_len in sequences) + 3
        free = torch.randperm(total_blocks).tolist()
        self.k_cache, self.v_cache = torch.full(
            (2, total_blocks, kv_heads, block, size), torch.nan, dtype=dtype
        )
        for queries, kv_len in sequences:
            blocks = [free.pop() for _ in range(-(-kv_len // block))]
            q = torch.randn(queries, heads, size).to(dtype)
            k, v = torch.randn(2, kv_len, kv_heads, size).to(dtype)
            first_seen = 0 if window is None else max(0, kv_len - queries - window + 1)
            for position in range(first_seen, kv_len):
                self.k_cache[blocks[position // block], :, position % block] = k[position]
                self.v_cache[blocks[position // block], :, position % block] = v[position]
            self.sequences.append((q, k, v))
            tables.append(blocks)
        width = max(map(len, tables)) + 1
        padded = torch.tensor([blocks + [total_blocks - 1] * (width - len(blocks)) for blocks in tables])
        starts = torch.tensor([0, *(queries for queries, _ in sequences)]).cumsum(0).tolist()
        self.batch = AttentionBatch(tuple(starts), tuple(kv_len for _, kv_len in sequences), padded)
        self.q = torch.cat([q for q, _, _ in self.sequences])

    def run(self, kernels: KernelSet) -> Tensor:
        return kernels.paged_attention(
            self.q, self.k_cache, self.v_cache, self.batch, self.scale, self.window
        )

    def expected(self) -> Tensor:
        return torch.cat([self._attend(q, k, v) for q, k, v in self.sequences])

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries, kv_len, group = len(q), len(k), q.shape[1] // k.shape[1]
        seen = torch.ones(queries, kv_len, dtype=torch.bool).tril(kv_len - queries)
        if self.window is not None:
            seen = seen.triu(kv_len - queries - self.window + 1)
        q, k, v = (part.double().transpose(0, 1) for part in (q, k, v))
        k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=self.scale)
        return out.transpose(0, 1).to(self.q.dtype)


def test_weights_are_a_softmax_over_the_positions_seen(kernels: KernelSet):
    k_cache = torch.tensor([[[[0.0], [2.0]]]])
    v_cache = torch.tensor([[[[1.0], [3.0]]]])
    batch = AttentionBatch((0, 2), (2,), torch.tensor([[0]]))
    out = kernels.paged_attention(torch.ones(2, 1, 1), k_cache, v_cache, batch, 0.5, None)
    last = (1 + 3 * torch.e) / (1 + torch.e)
    assert torch.allclose(out.flatten(), torch.tensor([1.0, last]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kv_len", [1, BLOCK - 1, BLOCK, BLOCK + 1, 100])
def test_one_query_sees_all_keys(kernels: KernelSet, kv_len: int, dtype: torch.dtype):
    case = PagedCase([(1, kv_len)], dtype=dtype)
    assert_close("paged_attention", case.run(kernels), case.expected())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group", [1, 4, 7, 8])
@pytest.mark.parametrize("sequences", [[(1, 33), (1, 9)], [(5, 5)], [(13, 40), (1, 3)]])
def test_groups_of_heads_share_keys(kernels: KernelSet, sequences: list, group: int, dtype: torch.dtype):
    case = PagedCase(sequences, heads=2 * group, kv_heads=2, dtype=dtype)
    assert_close("paged_attention", case.run(kernels), case.expected())


MIXED = [(1, 1), (7, 7), (1, 8), (3, 9), (1, 64), (17, 17), (1, 65), (1, 200), (20, 150), (1, 5), (2, 2)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [None, 1, 3, BLOCK, 12, 1000])
def test_a_mixed_step_equals_every_sequence_alone(kernels: KernelSet, window: int | None, dtype: torch.dtype):
    case = PagedCase(MIXED, window=window, dtype=dtype)
    assert_close("paged_attention", case.run(kernels), case.expected())


@pytest.mark.parametrize("block", [1, 4, 16, 32])
@pytest.mark.parametrize("size", [8, 64, 80, 128])
def test_block_and_head_sizes(kernels: KernelSet, size: int, block: int):
    case = PagedCase([(1, 50), (6, 33), (1, 31)], size=size, block=block)
    assert_close("paged_attention", case.run(kernels), case.expected())


def test_many_decoding_sequences_of_uneven_length(kernels: KernelSet):
    case = PagedCase([(1, 1 + (37 * i) % 300) for i in range(64)])
    assert_close("paged_attention", case.run(kernels), case.expected())


def test_queries_may_be_a_view_and_tables_int32(kernels: KernelSet):
    case = PagedCase(MIXED)
    wide = torch.randn(case.q.shape[0], 7, 16)
    wide[:, 1:5] = case.q
    case.q = wide[:, 1:5]
    case.batch = AttentionBatch(case.batch.query_starts, case.batch.kv_lens, case.batch.block_tables.int())
    out = case.run(kernels)
    assert out.is_contiguous()
    assert_close("paged_attention", out, case.expected())


def test_one_batch_serves_layers_of_different_windows(kernels: KernelSet):
    whole, windowed = PagedCase(MIXED), PagedCase(MIXED, window=4)
    windowed.batch = AttentionBatch(
        whole.batch.query_starts, whole.batch.kv_lens, windowed.batch.block_tables
    )
    first = windowed.run(kernels)
    windowed.window = None
    windowed.k_cache, windowed.v_cache = windowed.k_cache.nan_to_num(0), windowed.v_cache.nan_to_num(0)
    windowed.run(kernels)
    windowed.window = 4
    assert torch.equal(windowed.run(kernels), first)


def test_unfit_arguments_are_named(kernels: KernelSet):
    case = PagedCase([(2, 9)])
    with pytest.raises(ValueError, match="q has 1 rows, the batch 2"):
        kernels.paged_attention(case.q[:1], case.k_cache, case.v_cache, case.batch, 1.0, None)
    with pytest.raises(ValueError, match="bfloat16"):
        kernels.paged_attention(case.q.bfloat16(), case.k_cache, case.v_cache, case.batch, 1.0, None)
    with pytest.raises(ValueError, match="sliding_window must be at least 1"):
        kernels.paged_attention(case.q, case.k_cache, case.v_cache, case.batch, 1.0, 0)
    long = AttentionBatch((0, 2), (30,), case.batch.block_tables)
    with pytest.raises(ValueError, match="kv_len 30 is more than the 24 slots"):
        kernels.paged_attention(case.q, case.k_cache, case.v_cache, long, 1.0, None)


@pytest.mark.parametrize(
    ("starts", "lens", "message"),
    [
        ((0, 1), (1, 1), "need 3 query_starts"),
        ((0, 3), (2,), "3 queries and kv_len 2"),
        ((0, 0), (2,), "0 queries"),
    ],
)
def test_an_impossible_batch_is_refused(starts: tuple[int, ...], lens: tuple[int, ...], message: str):
    with pytest.raises(ValueError, match=message):
        AttentionBatch(starts, lens, torch.zeros(len(lens), 1, dtype=torch.int64))
