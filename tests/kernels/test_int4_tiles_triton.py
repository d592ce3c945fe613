"""The tiles of the Triton int4 kernels element by element, and the assembly that unpacks them."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from llmcli_kernels import Int4Weight
from llmcli_kernels.int4_linear import triton_unpack
from llmcli_kernels.int4_linear.triton_dequantize import launch_dequantize
from llmcli_kernels.int4_linear.triton_layout import fits_tiles, from_tiles, to_tiles
from tests.kernels import ptx
from tests.kernels.test_int4_linear_kernel import make_weight

SHAPES = [(1, 128, 32), (128, 128, 128), (130, 384, 64), (200, 512, 256), (129, 384, 96), (300, 256, 128)]


def any_weight(n: int, k: int, group_size: int) -> Int4Weight:
    """Scales of any bits: negative, subnormal, infinite, NaN."""
    weight = make_weight(n, k, group_size)
    bits = torch.randint(-(2**15), 2**15, weight.scales.shape, dtype=torch.int16)
    return Int4Weight(weight.q, weight.zeros, bits.view(torch.float16), group_size)


@pytest.mark.parametrize(("n", "k", "group_size"), SHAPES)
@pytest.mark.parametrize("slice_weights", [1, 1 << 24])
def test_tiles_give_back_every_bit(triton_device, n: int, k: int, group_size: int, slice_weights: int):
    weight = any_weight(n, k, group_size)
    back = from_tiles(to_tiles(weight, slice_weights))
    assert torch.equal(back.q, weight.q)
    assert torch.equal(back.zeros, weight.zeros)
    assert torch.equal(back.scales.view(torch.int16), weight.scales.view(torch.int16))
    assert back.group_size == weight.group_size


@pytest.mark.parametrize(("n", "k", "group_size"), SHAPES)
def test_each_integer_lies_where_the_layout_says(n: int, k: int, group_size: int):
    weight = any_weight(n, k, group_size)
    tiled, integers = to_tiles(weight), weight.integers()
    for row, column in zip(torch.randint(n, (500,)).tolist(), torch.randint(k, (500,)).tolist(), strict=True):
        word = tiled.words[row // 128, column // 128, row % 128, column % 32].item() & 0xFFFF
        nibble = {0: 0, 64: 1, 32: 2, 96: 3}[column % 128 - column % 32]
        assert word >> 4 * nibble & 15 == integers[row, column]


@pytest.mark.parametrize(("n", "k", "group_size"), SHAPES)
def test_each_scale_lies_with_its_zero_where_the_layout_says(n: int, k: int, group_size: int):
    weight = any_weight(n, k, group_size)
    tiled = to_tiles(weight)
    assert tiled.tile_group == max(group for group in (32, 64, 128) if group_size % group == 0)
    for row, column in zip(torch.randint(n, (200,)).tolist(), torch.randint(k, (200,)).tolist(), strict=True):
        place = row % 128 // 64 * 64 + row % 8 * 8 + row % 64 // 8
        pair = tiled.scale_zeros[row // 128, column // tiled.tile_group, place].item()
        group = column // group_size
        assert pair & 0xFFFF == weight.scales[row, group].view(torch.int16).item() & 0xFFFF
        high = np.array(pair >> 16 & 0xFFFF, np.uint16).view(np.float16)
        assert high == weight.zeros[row, group].item()


def test_rows_that_fill_a_tile_up_weigh_nothing():
    tiled = to_tiles(make_weight(130, 256, 64))
    assert not tiled.words[1, :, 2:].any()
    assert (tiled.scale_zeros[1].count_nonzero(dim=1) == 2).all()


@pytest.mark.parametrize(("k", "group_size"), [(96, 96), (192, 32), (256, 16), (384, 48)])
def test_what_does_not_fill_tiles_is_refused(k: int, group_size: int):
    weight = make_weight(3, k, group_size)
    assert not fits_tiles(weight)
    with pytest.raises(ValueError, match=f"K {k} in groups of {group_size}"):
        to_tiles(weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows_of_program", [64, 128])
@pytest.mark.parametrize(("n", "k", "group_size"), [(130, 256, 64), (70, 128, 32), (65, 512, 256)])
def test_dequantized_weights_are_rounded_once(triton_device, n, k, group_size, rows_of_program, dtype):
    weight = make_weight(n, k, group_size)
    out = torch.full((n, k), torch.nan, dtype=dtype)
    launch_dequantize(to_tiles(weight), 0, out, BN=rows_of_program, num_warps=1)
    assert torch.equal(out, weight.dequantize(dtype))


def every_half() -> np.ndarray:
    """Words in whose halves each of the 65536 half-words stands once."""
    halves = np.arange(65536, dtype=np.uint32)
    return halves | halves[::-1] << 16


def nibbles_of_planes(words: np.ndarray) -> list[list[torch.Tensor]]:
    """The integers of the planes 0 to 3 of each half of the words."""
    by_half = [words & 0xFFFF, words >> 16]
    return [
        [torch.from_numpy((half >> 4 * nibble & 15).astype(np.float64)) for half in by_half]
        for nibble in (0, 2, 1, 3)
    ]


@pytest.mark.parametrize(
    ("text", "dtype", "offset", "unit", "factor"),
    [
        (triton_unpack.SUBNORMAL_ASM, torch.float16, 0, 2.0**-24, 16),
        (triton_unpack.FLOAT16_ASM, torch.float16, 1024, 1, 16),
        (triton_unpack.BFLOAT16_ASM, torch.bfloat16, 128, 1, 1),
    ],
    ids=["subnormal", "float16", "bfloat16"],
)
def test_assembly_encodes_every_nibble(text, dtype: torch.dtype, offset: int, unit: float, factor: int):
    words = every_half()
    outputs = ptx.run(text.value, [words], 4)
    for plane, (output, nibbles) in enumerate(zip(outputs, nibbles_of_planes(words), strict=True)):
        counts = factor if plane >= 2 else 1
        for number, nibble in zip(ptx.halves(output, dtype), nibbles, strict=True):
            assert torch.equal(number, (offset + counts * nibble) * unit)


@pytest.mark.parametrize(
    ("text", "dtype", "offsets"),
    [
        (triton_unpack.WEIGHTS_FLOAT16_ASM, torch.float16, (1024, 1024, 64, 64)),
        (triton_unpack.WEIGHTS_BFLOAT16_ASM, torch.bfloat16, (128, 128, 128, 128)),
    ],
    ids=["float16", "bfloat16"],
)
def test_assembly_makes_weights_that_are_rounded_once(text, dtype: torch.dtype, offsets: tuple[int, ...]):
    words = every_half()
    zeros = [torch.randint(0, 16, (65536,)).double() for _ in offsets]
    scales = [(torch.rand(65536) * 0.05).to(dtype) for _ in offsets]
    minus = [-(offset + zero).to(dtype) for offset, zero in zip(offsets, zeros, strict=True)]
    outputs = ptx.run(text.value, [words, *(ptx.words_of(a, a) for a in (*minus, *scales))], 4)
    for output, nibbles, zero, scale in zip(outputs, nibbles_of_planes(words), zeros, scales, strict=True):
        for number, nibble in zip(ptx.halves(output, dtype), nibbles, strict=True):
            assert torch.equal(number, ((nibble - zero) * scale.double()).to(dtype).double())
