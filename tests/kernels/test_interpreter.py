"""The stand-in for a GPU must round as one does, else every other test of a Triton kernel proves less."""

import pytest
import torch

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")


@triton.jit
def _arithmetic(x_ptr, y_ptr, sum_ptr, product_ptr, less_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x, y = tl.load(x_ptr + at), tl.load(y_ptr + at)
    tl.store(sum_ptr + at, x + y)
    tl.store(product_ptr + at, x * y)
    tl.store(less_ptr + at, (x < y).to(tl.int8))


@triton.jit
def _convert(x_ptr, y_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(y_ptr + at, tl.load(x_ptr + at).to(y_ptr.dtype.element_ty))


@triton.jit
def _dot(a_ptr, b_ptr, c_ptr, N: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(c_ptr + at, tl.dot(tl.load(a_ptr + at), tl.load(b_ptr + at)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_arithmetic_rounds_once(triton_device: str, dtype: torch.dtype):
    x, y = torch.randn(2, 256).to(dtype)
    total, product, less = torch.empty_like(x), torch.empty_like(x), torch.empty(256, dtype=torch.int8)
    _arithmetic[1,](x, y, total, product, less, N=256)
    assert torch.equal(total, x + y)
    assert torch.equal(product, x * y)
    assert torch.equal(less.bool(), x < y)


@pytest.mark.parametrize("source", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("target", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_conversions_round_to_nearest_even(triton_device: str, source: torch.dtype, target: torch.dtype):
    x = (torch.randn(1024) * 60).clamp(-440, 440).to(source)
    y = torch.empty(1024, dtype=target)
    _convert[1,](x, y, N=1024)
    assert torch.equal(y.float(), x.to(torch.float32).to(target).float())


def test_a_bfloat16_dot_accumulates_in_float32(triton_device: str):
    a, b = torch.randn(2, 32, 32).to(torch.bfloat16)
    c = torch.empty(32, 32)
    _dot[1,](a, b, c, N=32)
    assert torch.allclose(c, a.float() @ b.float(), rtol=1e-5, atol=1e-5)
