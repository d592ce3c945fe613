"""Paged attention against attention on contiguous keys and values in float64, with NaN in unseen slots."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmcli_kernels import AttentionBatch, KernelSet
from llmcli_kernels.paged_kv import PagedKV, quantize
from tests.kernels.bounds import assert_close

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
STORAGES = [torch.int8, torch.float8_e4m3fn]
BLOCK = 8


class PagedCase:
    """Sequences of (queries, kv_len) scattered over shuffled blocks of a cache whose other slots give NaN."""

    def __init__(
        self,
        sequences,
        heads=4,
        kv_heads=2,
        size=16,
        dtype=torch.float32,
        window=None,
        block=BLOCK,
        softcap=None,
        storage=None,
    ):
        self.scale, self.window, self.softcap = size**-0.5 * 1.25, window, softcap
        tables, self.sequences = [], []
        total_blocks = sum(-(-kv_len // block) for _, kv_len in sequences) + 3
        free = torch.randperm(total_blocks).tolist()
        self.kv = poisoned_cache((total_blocks, kv_heads, block, size), storage or dtype)
        for queries, kv_len in sequences:
            blocks = [free.pop() for _ in range(-(-kv_len // block))]
            q = torch.randn(queries, heads, size).to(dtype)
            k, v = torch.randn(2, kv_len, kv_heads, size).to(dtype)
            first_seen = 0 if window is None else max(0, kv_len - queries - window + 1)
            seen = torch.arange(first_seen, kv_len)
            at = (torch.tensor(blocks)[seen // block], slice(None), seen % block)
            self.sequences.append((q, self._store("key", at, k, seen), self._store("value", at, v, seen)))
            tables.append(blocks)
        width = max(map(len, tables)) + 1
        padded = torch.tensor([blocks + [total_blocks - 1] * (width - len(blocks)) for blocks in tables])
        starts = torch.tensor([0, *(queries for queries, _ in sequences)]).cumsum(0).tolist()
        self.batch = AttentionBatch(tuple(starts), tuple(kv_len for _, kv_len in sequences), padded)
        self.q = torch.cat([q for q, _, _ in self.sequences])

    def _store(self, part: str, at: tuple, x: Tensor, seen: Tensor) -> Tensor:
        """Write x [kv_len, HKV, D] where it is seen; gives back the numbers that it stands for there."""
        cache, scales = getattr(self.kv, f"{part}s"), getattr(self.kv, f"{part}_scales")
        if scales is None:
            cache[at] = x[seen]
            return x
        stored, scales[at] = quantize(x[seen], cache.dtype)
        cache.view(torch.uint8)[at] = stored.view(torch.uint8)
        x = x.double()
        x[seen] = stored.double() * scales[at].double().unsqueeze(-1)
        return x

    def run(self, kernels: KernelSet) -> Tensor:
        return kernels.paged_attention(self.q, self.kv, self.batch, self.scale, self.window, self.softcap)

    def expected(self) -> Tensor:
        return torch.cat([self._attend(q, k, v) for q, k, v in self.sequences])

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries, kv_len, group = len(q), len(k), q.shape[1] // k.shape[1]
        seen = torch.ones(queries, kv_len, dtype=torch.bool).tril(kv_len - queries)
        if self.window is not None:
            seen = seen.triu(kv_len - queries - self.window + 1)
        q, k, v = (part.double().transpose(0, 1) for part in (q, k, v))
        k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
        if self.softcap is None:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=self.scale)
        else:
            scores = torch.tanh(q @ k.mT * (self.scale / self.softcap)) * self.softcap
            out = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v
        return out.transpose(0, 1).to(self.q.dtype)


def poisoned_cache(shape: tuple[int, int, int, int], dtype: torch.dtype) -> PagedKV:
    """A cache that gives NaN wherever nobody has written; in 8 bits it is the scales that do."""
    if dtype not in STORAGES:
        return PagedKV(*torch.full((2, *shape), torch.nan, dtype=dtype))
    keys, values = torch.randint(0, 256, (2, *shape), dtype=torch.uint8).view(dtype)
    return PagedKV(keys, values, *torch.full((2, *shape[:3]), torch.nan))


def test_weights_are_a_softmax_over_the_positions_seen(kernels: KernelSet):
    kv = PagedKV(torch.tensor([[[[0.0], [2.0]]]]), torch.tensor([[[[1.0], [3.0]]]]))
    batch = AttentionBatch((0, 2), (2,), torch.tensor([[0]]))
    out = kernels.paged_attention(torch.ones(2, 1, 1), kv, batch, 0.5, None, None)
    last = (1 + 3 * torch.e) / (1 + torch.e)
    assert torch.allclose(out.flatten(), torch.tensor([1.0, last]))
    capped = kernels.paged_attention(torch.ones(2, 1, 1), kv, batch, 0.5, None, 0.25)
    share = torch.e ** (0.25 * 0.9993293)  # tanh(1 / 0.25)
    assert torch.allclose(capped.flatten(), torch.tensor([1.0, (1 + 3 * share) / (1 + share)]))


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


FEW = [(1, 1), (5, 5), (1, 30), (9, 27), (1, 41)]
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [None, 12])
def test_a_soft_cap_bends_scores_before_the_mask(kernels: KernelSet, window: int | None, dtype: torch.dtype):
    case = PagedCase(FEW, dtype=dtype, window=window, softcap=0.7)
    assert_close("paged_attention", case.run(kernels), case.expected())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (5, 0.7)])
def test_8_bit_keys_and_values_are_numbers_times_scales(kernels, storage, window, softcap, dtype):
    case = PagedCase(FEW, heads=8, dtype=dtype, window=window, softcap=softcap, storage=storage)
    assert_close("paged_attention", case.run(kernels), case.expected())


@pytest.mark.parametrize("size", [64, 80, 96])
@pytest.mark.parametrize("storage", STORAGES)
def test_8_bit_storage_of_several_head_sizes(kernels: KernelSet, storage: torch.dtype, size: int):
    case = PagedCase([(1, 50), (6, 33)], size=size, block=16, storage=storage)
    assert_close("paged_attention", case.run(kernels), case.expected())


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("queries", [1, 3])
def test_a_scale_of_nan_makes_the_answers_of_its_sequence_nan(kernels, storage: torch.dtype, queries: int):
    case = PagedCase([(queries, 20), (1, 20)], storage=storage)
    clean = case.run(kernels)
    case.kv.key_scales[case.batch.block_tables[0, 1], 0, 2] = torch.nan
    out = case.run(kernels)
    assert out[:queries, :2].isnan().all()
    assert torch.equal(out[queries:], clean[queries:])
    assert torch.equal(out[:queries, 2:], clean[:queries, 2:])


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
    windowed.kv = PagedKV(windowed.kv.keys.nan_to_num(0), windowed.kv.values.nan_to_num(0))
    windowed.run(kernels)
    windowed.window = 4
    assert torch.equal(windowed.run(kernels), first)


def test_unfit_arguments_are_named(kernels: KernelSet):
    case = PagedCase([(2, 9)])

    def refused(message: str, **changes: object) -> None:
        good = {"q": case.q, "kv": case.kv, "batch": case.batch, "scale": 1.0}
        with pytest.raises(ValueError, match=message):
            kernels.paged_attention(**(good | {"sliding_window": None, "softcap": None} | changes))

    refused("q has 1 rows, the batch 2", q=case.q[:1])
    refused("q is torch.bfloat16, the cache torch.float32", q=case.q.bfloat16())
    refused("multiple of 2, 16", q=case.q[:, :3])
    refused("sliding_window must be at least 1", sliding_window=0)
    refused("softcap must be above 0", softcap=0.0)
    long = AttentionBatch((0, 2), (30,), case.batch.block_tables)
    refused("kv_len 30 is more than the 24 slots", batch=long)


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
