"""Rotation, cache write and attention in one call do what they do in turn, and write the same cache."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from llmcli_kernels import KernelSet
from llmcli_kernels.activations import Partials
from llmcli_kernels.paged_kv import PagedKV
from llmcli_kernels.rope_kv_write import QKNorm
from tests.kernels.bounds import assert_close
from tests.kernels.test_paged_attention_kernel import PagedCase
from tests.kernels.test_rope_kv_write_kernel import make_table

DECODES = [(1, 40), (1, 1), (1, 33), (1, 16), (1, 17)]


@dataclass
class AttendCase:
    """A step of sequences of (queries, kv_len), the keys and values of whose queries are not in the cache yet."""

    paged: PagedCase
    qkv: Tensor | Partials
    positions: Tensor
    slots: Tensor
    table: Tensor
    norm: QKNorm | None

    @property
    def num_heads(self) -> int:
        return self.paged.q.shape[1]

    def cache(self) -> PagedKV:
        """A copy of what is there before the step."""
        kv = self.paged.kv
        parts = (kv.keys, kv.values, kv.key_scales, kv.value_scales)
        return PagedKV(*(None if part is None else part.clone() for part in parts))  # type: ignore[arg-type]

    def rows(self) -> Tensor | Partials:
        """A copy: some sets use them up."""
        return (
            Partials(self.qkv.parts.clone(), self.qkv.dtype)
            if isinstance(self.qkv, Partials)
            else self.qkv.clone()
        )

    def at_once(self, kernels: KernelSet, kv: PagedKV) -> Tensor:
        case = self.paged
        return kernels.attend(
            self.rows(), self.positions, self.slots, self.table, kv, self.num_heads, self.norm,
            case.batch, case.scale, case.window, case.softcap,
        )  # fmt: skip

    def in_turn(self, kernels: KernelSet, kv: PagedKV) -> Tensor:
        case = self.paged
        q = kernels.rope_kv_write(
            self.rows(), self.positions, self.slots, self.table, kv, self.num_heads, self.norm
        )
        return kernels.paged_attention(q, kv, case.batch, case.scale, case.window, case.softcap)


def make(
    sequences: list[tuple[int, int]],
    *,
    summands: int = 1,
    norm: bool = False,
    rotary: int | None = None,
    **options: Any,
) -> AttendCase:
    paged = PagedCase(sequences, **options)
    kv, tables, dtype = paged.kv, paged.batch.block_tables, paged.q.dtype
    size, heads = kv.head_size, paged.q.shape[1] + 2 * kv.num_kv_heads
    sequence = torch.tensor([n for n, (queries, _) in enumerate(sequences) for _ in range(queries)])
    positions = torch.tensor([at for queries, length in sequences for at in range(length - queries, length)])
    slots = tables[sequence, positions // kv.block_size] * kv.block_size + positions % kv.block_size
    parts = torch.randn(summands, len(positions), heads * size)
    qkv = parts[0].to(dtype) if summands == 1 else Partials(parts, dtype)
    weights = torch.randn(2, size).to(dtype)
    qk_norm = QKNorm(weights[0], weights[1], 1e-5) if norm else None
    return AttendCase(paged, qkv, positions, slots, make_table(200, rotary or size), qk_norm)


def assert_same_cache(one: PagedKV, other: PagedKV) -> None:
    for name in ("keys", "values", "key_scales", "value_scales"):
        first, second = getattr(one, name), getattr(other, name)
        assert (first is None) == (second is None)
        if first is not None:
            bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[first.element_size()]
            assert torch.equal(first.view(bits), second.view(bits)), name


@pytest.mark.parametrize("sequences", [DECODES, [(1, 40), (3, 20), (20, 25)], [(2, 2)]], ids=str)
def test_every_set_does_what_the_reference_does(kernels, reference, sequences: list[tuple[int, int]]) -> None:
    case = make(sequences, dtype=torch.float32)
    kv, expected_kv = case.cache(), case.cache()
    expected = case.in_turn(reference, expected_kv)
    assert_close("paged_attention", case.at_once(kernels, kv), expected)
    at = (case.slots // kv.block_size, slice(None), case.slots % kv.block_size)
    assert_close("rope_kv_write", kv.keys[at], expected_kv.keys[at])
    assert torch.equal(kv.values[at], expected_kv.values[at])
