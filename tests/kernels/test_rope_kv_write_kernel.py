"""Head norms, rotation and cache write: by hand, against transformers, and a slot is the token's own or untouched."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm, apply_rotary_pos_emb

from llmcli_kernels import KernelSet, select
from llmcli_kernels.paged_kv import PagedKV, dequantize
from llmcli_kernels.rope_kv_write import QKNorm
from tests.kernels.bounds import assert_close

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
STORAGES = [torch.int8, torch.float8_e4m3fn]
SLOTS = (5, 0, 19, 2, 7)
BLOCK, BLOCKS = 4, 5


def make_table(positions: int, rotary_size: int) -> Tensor:
    frequencies = 10000.0 ** (-torch.arange(0, rotary_size, 2) / rotary_size)
    angles = torch.arange(positions)[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=1)


def make_cache(kv_heads: int, size: int, dtype: torch.dtype) -> PagedKV:
    """A cache full of a number that no token has."""
    keys, values = (torch.full((BLOCKS, kv_heads, BLOCK, size), 80.0).to(dtype) for _ in range(2))
    if dtype not in STORAGES:
        return PagedKV(keys, values)
    return PagedKV(keys, values, torch.full(keys.shape[:3], 3.0), torch.full(keys.shape[:3], 3.0))


def at_slots(part: Tensor, slots: Tensor) -> Tensor:
    """The entries of a part of the cache that tokens were written to: [T, HKV, ...]."""
    return part[slots // BLOCK, :, slots % BLOCK]


class Case:
    """A step of one token a slot, and what transformers makes of it in float32 and the dtype."""

    def __init__(
        self, slots=SLOTS, heads=4, kv_heads=2, size=16, rotary=None, dtype=torch.float32, norm=False
    ):
        self.shape = (heads, kv_heads, kv_heads)
        self.size, self.dtype = size, dtype
        self.positions = torch.randint(0, 100, (len(slots),))
        self.slots, self.table = torch.tensor(slots), make_table(100, rotary or size)
        self.qkv = torch.randn(len(slots), sum(self.shape) * size).to(dtype)
        weights = torch.randn(2, size).to(dtype)
        self.norm = QKNorm(weights[0], weights[1], 1e-5) if norm else None

    def cache(self, storage: torch.dtype | None = None) -> PagedKV:
        return make_cache(self.shape[1], self.size, storage or self.dtype)

    def run(self, kernels: KernelSet, kv: PagedKV) -> Tensor:
        qkv = self.qkv.clone(memory_format=torch.preserve_format)
        return kernels.rope_kv_write(
            qkv, self.positions, self.slots, self.table, kv, self.shape[0], self.norm
        )

    def parts(self) -> tuple[Tensor, ...]:
        return self.qkv.unflatten(1, (-1, self.size)).split(self.shape, dim=1)

    def expected(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v as attention should see them: [T, heads, D]."""
        q, k, v = self.parts()
        if self.norm is not None:
            q, k = self._normed(q, self.norm.q_weight), self._normed(k, self.norm.k_weight)
        rotary = self.table.shape[1]
        cos, sin = (half.repeat(1, 2)[None] for half in self.table[self.positions].chunk(2, dim=1))
        wide = (part[..., :rotary].float().transpose(0, 1)[None] for part in (q, k))
        turned = [part[0].transpose(0, 1).to(self.dtype) for part in apply_rotary_pos_emb(*wide, cos, sin)]
        q, k = (torch.cat((a, b[..., rotary:]), -1) for a, b in zip(turned, (q, k), strict=True))
        return q, k, v

    def _normed(self, heads: Tensor, weight: Tensor) -> Tensor:
        module = Qwen3RMSNorm(self.size, eps=1e-5)
        module.weight.data = weight
        return module(heads).detach()


def assert_written(case: Case, kernels: KernelSet) -> None:
    """q and k within the bounds, v to the bit, no other slot touched."""
    kv, operation = case.cache(), "rope_kv_write" if case.norm is None else "rope_kv_write_norm"
    expected_q, expected_k, v = case.expected()
    assert_close(operation, case.run(kernels, kv), expected_q)
    assert_close(operation, at_slots(kv.keys, case.slots), expected_k)
    assert torch.equal(at_slots(kv.values, case.slots), v)
    for part in (kv.keys, kv.values):
        at = (case.slots // BLOCK, slice(None), case.slots % BLOCK)
        part[at] = 80.0
        assert (part == 80.0).all()


def test_a_quarter_turn_swaps_the_halves_of_q_and_k_but_not_of_v(kernels: KernelSet):
    table = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    qkv = torch.tensor([[1.0, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24]]).repeat(2, 1)
    kv, at = make_cache(1, 4, torch.float32), torch.tensor([0, 1])
    q = kernels.rope_kv_write(qkv, at, at + 6, table, kv, 1, None)
    assert q.tolist() == [[[1.0, 2.0, 3.0, 4.0]], [[-3.0, -4.0, 1.0, 2.0]]]
    assert kv.keys[1, 0, 2:].tolist() == [[11.0, 12.0, 13.0, 14.0], [-13.0, -14.0, 11.0, 12.0]]
    assert kv.values[1, 0, 2:].tolist() == [[21.0, 22.0, 23.0, 24.0]] * 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [False, True], ids=["", "norm"])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "size", "rotary"), [(4, 1, 8, 8), (7, 7, 64, 64), (3, 2, 128, 128), (8, 2, 80, 32)]
)
def test_heads_equal_those_of_transformers(kernels, heads, kv_heads, size, rotary, norm, dtype):
    case = Case(heads=heads, kv_heads=kv_heads, size=size, rotary=rotary, dtype=dtype, norm=norm)
    assert_written(case, kernels)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slots", [(0,), (3, 4, 5, 6, 7, 8), tuple(range(20)), (19, 3, 0)])
def test_tokens_land_in_their_slots_and_nothing_else_changes(kernels, slots: tuple, dtype: torch.dtype):
    assert_written(Case(slots, heads=3, kv_heads=3, size=8, dtype=dtype), kernels)


def test_the_rows_may_be_a_view(kernels: KernelSet):
    case = Case()
    wide = torch.full((5, case.qkv.shape[1] + 3), torch.nan)
    wide[:, 2:-1] = case.qkv
    case.qkv = wide[:, 2:-1]
    expected_q, expected_k, v = (part.clone() for part in case.expected())
    kv = case.cache()
    q = kernels.rope_kv_write(case.qkv, case.positions, case.slots, case.table, kv, 4, None)
    assert_close("rope_kv_write", q, expected_q)
    assert_close("rope_kv_write", at_slots(kv.keys, case.slots), expected_k)
    assert torch.equal(at_slots(kv.values, case.slots), v)


def test_partial_rotation_passes_the_rest(kernels: KernelSet):
    case = Case(size=20, rotary=8)
    kv = case.cache()
    q = case.run(kernels, kv)
    before_q, before_k, _ = case.parts()
    assert torch.equal(q[..., 8:], before_q[..., 8:])
    assert torch.equal(at_slots(kv.keys, case.slots)[..., 8:], before_k[..., 8:])


def test_the_norm_does_not_overflow_in_half_precision(kernels: KernelSet):
    case = Case(dtype=torch.float16)
    case.qkv[:] = 6e4
    case.norm = QKNorm(torch.ones(16).half(), torch.ones(16).half(), 1e-6)
    case.table[:, :8], case.table[:, 8:] = 1.0, 0.0
    kv = case.cache()
    assert (case.run(kernels, kv) == 1).all()
    assert (at_slots(kv.keys, case.slots) == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("size", "rotary"), [(16, 16), (80, 32)])
def test_8_bit_storage_is_half_a_step_from_the_number(kernels, storage, dtype, size, rotary):
    case = Case(size=size, rotary=rotary, dtype=dtype)
    plain, kv = case.cache(), case.cache(storage)
    assert torch.equal(case.run(kernels, kv), case.run(kernels, plain))
    for name in ("keys", "values"):
        exact = at_slots(getattr(plain, name), case.slots).double()
        scales = at_slots(getattr(kv, name.removesuffix("s") + "_scales"), case.slots)
        stored = at_slots(getattr(kv, name).view(torch.uint8), case.slots).view(storage)
        amax = exact.abs().amax(-1, keepdim=True)
        # int8 has 127 even steps; float8 has 3 bits of mantissa, and even steps of 2⁻⁹ below 2⁻⁶.
        half_step = amax / 254 if storage == torch.int8 else (exact.abs() / 16).maximum(amax / 448 / 1024)
        error = (dequantize(stored, scales).double() - exact).abs()
        assert (error <= half_step * (1 + 1e-5)).all()


@pytest.mark.parametrize("storage", STORAGES)
def test_8_bit_storage_leaves_other_slots_and_scales_alone(kernels, storage):
    case = Case()
    kv, untouched = case.cache(storage), case.cache(storage)
    case.run(kernels, kv)
    written = torch.zeros(BLOCKS, 2, BLOCK, dtype=torch.bool)
    written[case.slots // BLOCK, :, case.slots % BLOCK] = True
    for name in ("key_scales", "value_scales"):
        assert torch.equal(getattr(kv, name) != 3.0, written)
    for name in ("keys", "values"):
        before, after = (getattr(cache, name).view(torch.uint8) for cache in (untouched, kv))
        assert torch.equal(after[~written], before[~written])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_visible_in_8_bits_and_spoils_only_its_own_head(kernels, storage, bad):
    case = Case()
    kv, clean = case.cache(storage), case.cache(storage)
    case.run(kernels, clean)
    case.qkv[3, 5 * 16 + 1] = bad  # token 3, the second head of k
    case.qkv[1, 6 * 16] = bad  # token 1, the first head of v
    case.run(kernels, kv)
    for name, token, head in (("key_scales", 3, 1), ("value_scales", 1, 0)):
        expected = at_slots(getattr(clean, name), case.slots)
        expected[token, head] = torch.nan
        assert torch.equal(at_slots(getattr(kv, name), case.slots).nan_to_num(-1), expected.nan_to_num(-1))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_head_of_zeros_is_stored_as_zeros_of_scale_0(kernels, storage):
    case = Case()
    case.qkv[:, 4 * 16 :] = 0
    kv = case.cache(storage)
    case.run(kernels, kv)
    for scales in (kv.key_scales, kv.value_scales):
        assert (at_slots(scales, case.slots) == 0).all()
    for part in (kv.keys, kv.values):
        assert (at_slots(part.float(), case.slots) == 0).all()


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_on_a_cpu_a_position_or_slot_past_the_end_is_an_error(name: str):
    case, kernels = Case(slots=(0,)), select("cpu", name)
    kv = case.cache()
    with pytest.raises(IndexError):
        kernels.rope_kv_write(case.qkv, case.positions + 100, case.slots, case.table, kv, 4, None)
    assert (kv.keys == 80.0).all()
    with pytest.raises(IndexError):
        kernels.rope_kv_write(case.qkv, case.positions, case.slots + BLOCK * BLOCKS, case.table, kv, 4, None)


def test_unfit_arguments_are_named(kernels: KernelSet):
    case = Case(slots=(0, 1))
    kv, half = case.cache(), case.qkv.half()
    good = (case.qkv, case.positions, case.slots, case.table, kv, 4, None)

    def refused(message: str, **changes: object) -> None:
        names = ("qkv", "positions", "slots", "cos_sin", "kv", "num_heads", "qk_norm")
        with pytest.raises(ValueError, match=message):
            kernels.rope_kv_write(**(dict(zip(names, good, strict=True)) | changes))

    refused(r"\[2, 128\] must be \[T, 144\] for 5 \+ 2 · 2 heads of 16", num_heads=5)
    refused("last dim contiguous", qkv=torch.ones(128, 2).T)
    refused("qkv is torch.float16, the cache torch.float32", qkv=half)
    refused("positions must be int64 .* got torch.int32", positions=case.positions.int())
    refused(r"slots must be int64 \[2\].* got torch.int64 \[1\]", slots=case.slots[:1])
    refused("at most 16", cos_sin=make_table(100, 18))
    refused("at most 16", cos_sin=case.table.half())
    weight = torch.ones(16)
    refused("q_weight must be torch.float32", qk_norm=QKNorm(weight.half(), weight, 1e-5))
    refused(r"k_weight .* got torch.float32 \[8\]", qk_norm=QKNorm(weight, weight[:8], 1e-5))
    refused("eps must be at least 0, got -1", qk_norm=replace(QKNorm(weight, weight, 1e-5), eps=-1.0))
