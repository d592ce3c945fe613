"""The sizes that everything is checked and measured at, and random operands of them.

Owns the list of real shapes and its tiny stand-in for a dry run. Knows no kernel.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli_kernels import AttentionBatch, Int4Weight
from llmcli_kernels.paged_kv import LARGEST, PagedKV, quantize

GROUP = 128
BLOCK = 16  # tokens of a cache page
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
DRY_ROWS = (1, 17, 40)


@dataclass(frozen=True)
class Layer:
    """A linear layer of a real model.

    Attributes:
        n, k: it has n rows of k weights.
    """

    name: str
    n: int
    k: int

    def __str__(self) -> str:
        return f"{self.name} {self.n}x{self.k}"


# Those that most depends on first, in case that time runs out.
LAYERS = (
    Layer("llama-3-8b gate_up", 28672, 4096),
    Layer("llama-3-8b o", 4096, 4096),
    Layer("llama-3-8b down", 4096, 14336),
    Layer("llama-3-8b qkv", 6144, 4096),
    Layer("llama-2-7b gate_up", 22016, 4096),
    Layer("llama-2-7b qkv", 12288, 4096),
    Layer("square", 16384, 16384),
)
DRY_LAYERS = (Layer("dry", 128, 256), Layer("dry plain", 64, 128))


@dataclass(frozen=True)
class Heads:
    """Attention of a real model: query heads, key heads, head size."""

    name: str
    q: int
    kv: int
    size: int


LLAMA3 = Heads("llama-3-8b", 32, 8, 128)
LLAMA2 = Heads("llama-2-7b", 32, 32, 128)
QWEN = Heads("qwen2.5-0.5b", 14, 2, 64)
DRY_HEADS = Heads("dry", 4, 2, 64)


def layers(dry: bool) -> tuple[Layer, ...]:
    return DRY_LAYERS if dry else LAYERS


def row_counts(dry: bool) -> tuple[int, ...]:
    return DRY_ROWS if dry else ROWS


def random_weight(layer: Layer, group: int = GROUP) -> Int4Weight:
    """Every integer from the whole range; scales that keep float16 outputs far from its ends."""
    groups = (layer.n, layer.k // group)
    return Int4Weight(
        q=torch.randint(0, 256, (layer.n, layer.k // 2), dtype=torch.uint8),
        zeros=torch.randint(0, 16, groups, dtype=torch.uint8),
        scales=(torch.rand(groups) * 0.009 + 0.001).half(),
        group_size=group,
    )


def random_cache(blocks: int, heads: Heads, dtype: torch.dtype, stored: torch.dtype | None = None) -> PagedKV:
    """A filled cache of one layer; `stored` is its 8-bit type."""
    shape = (blocks, heads.kv, BLOCK, heads.size)
    keys, values = (torch.randn(shape, dtype=dtype) for _ in range(2))
    if stored is None:
        return PagedKV(keys, values)
    assert stored in LARGEST
    (keys, key_scales), (values, value_scales) = quantize(keys, stored), quantize(values, stored)
    return PagedKV(keys, values, key_scales, value_scales)


def random_pages(lens: list[int], queries: list[int]) -> tuple[AttentionBatch, int]:
    """A batch whose pages lie scattered over the cache, and how many there are."""
    counts = [-(-length // BLOCK) for length in lens]
    pages = torch.randperm(sum(counts)).split(counts)
    tables = torch.zeros(len(lens), max(counts), dtype=torch.int64)
    for row, own in zip(tables, pages, strict=True):
        row[: own.numel()] = own
    starts = [0]
    for count in queries:
        starts.append(starts[-1] + count)
    return AttentionBatch(tuple(starts), tuple(lens), tables), sum(counts)


def poison(num_bytes: int) -> None:
    """Leave NaN in the memory that the next tensor of this size is likely to get."""
    torch.full((max(1, num_bytes // 4),), torch.nan, dtype=torch.float32)


def gathered(cache: Tensor, tables: Tensor) -> Tensor:
    """Pages laid side by side, [S, HKV, blocks · B, D]."""
    pages = cache[tables].transpose(1, 2)
    return pages.reshape(pages.shape[0], pages.shape[1], -1, pages.shape[-1])
