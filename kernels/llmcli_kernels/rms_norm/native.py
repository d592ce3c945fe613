"""RMS norm as native kernels, alone and after adding to the residual stream, for rows of whole vectors.

Two functions of a row (`native/rowwise.py`) over the words

    X, X_STRIDE         address of [rows, WIDTH], bytes from row to row
    RESIDUAL            address of [rows, WIDTH] contiguous, changed in place; unread by the norm alone
    WEIGHT, OUT         addresses of [WIDTH] and of [rows, WIDTH] contiguous
    WIDTH               a multiple of LANES
    EPS                 float32

Rounding is the reference's. Squares are added in 64 partial sums of float32, then as a tree: in one order on every
machine, whatever its registers are.
"""

from collections.abc import Callable

import torch
from llvmlite import ir
from torch import Tensor

from llmcli_kernels.native.emit import F32, Emit, Value, const, splat
from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import function, word, words
from llmcli_kernels.native.math import KINDS, float_word, fma, sum_lanes
from llmcli_kernels.native.rowwise import RowStage, rowwise

LANES = 16  # on every machine: LLVM makes two registers of them on AVX2
PARTIAL_SUMS = 4  # of LANES each

X, X_STRIDE, RESIDUAL, WEIGHT, OUT, WIDTH, EPS = range(7)  # words


class NativeRmsNorm:
    """`rms_norm` of 2-D x; the fallback does what `covers` does not."""

    def __init__(self, host: Host, fallback: Callable[[Tensor, Tensor, float], Tensor]) -> None:
        self._host, self._fallback = host, fallback

    def __call__(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if x.dim() != 2 or not weight.is_contiguous() or not covers(x.dtype, x.shape[1]):
            return self._fallback(x, weight, eps)
        return _run(self._host, x, None, weight, eps)


class NativeAddRmsNorm:
    """`add_rms_norm`; the fallback does what `covers` does not."""

    def __init__(self, host: Host, fallback: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> None:
        self._host, self._fallback = host, fallback

    def __call__(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        usable = x.dim() == 2 and x.stride(1) == 1 and residual.is_contiguous() and weight.is_contiguous()
        if not usable or not covers(x.dtype, x.shape[1]):
            return self._fallback(x, residual, weight, eps)
        return _run(self._host, x, residual, weight, eps)


def covers(dtype: torch.dtype, width: int) -> bool:
    return dtype in KINDS and width % LANES == 0


def stage(
    host: Host,
    dtype: torch.dtype,
    *,
    x: int,
    x_stride: int,
    residual: int | None,
    weight: int,
    out: int,
    width: int,
    eps: float,
) -> RowStage:
    """One norm, of x or, with a residual, of the sum that the residual becomes; the words are explained above."""
    kind = KINDS[dtype]
    compiled = host.compile(f"rms_norm {kind}", lambda module, _: emit(module, kind))
    args = words(x, x_stride, residual or 0, weight, out, width, float_word(eps))
    name = "rms_norm" if residual is None else "add_rms_norm"
    return RowStage(name, compiled.address(name), args)


def _run(host: Host, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    out, rows = torch.empty(x.shape, dtype=x.dtype), words(x.shape[0])
    norm = stage(
        host,
        x.dtype,
        x=x.data_ptr(),
        x_stride=x.stride(0) * x.element_size(),
        residual=None if residual is None else residual.data_ptr(),
        weight=weight.data_ptr(),
        out=out.data_ptr(),
        width=x.shape[1],
        eps=eps,
    )
    host.run(rowwise(host, rows.data_ptr(), norm))
    return out


def emit(module: ir.Module, kind: str) -> None:
    """The functions "rms_norm" and "add_rms_norm" (args, row) for one dtype."""
    for name in ("rms_norm", "add_rms_norm"):
        with function(module, name, 2) as (e, (args, row)):
            _Row(e, kind, args, adding=name == "add_rms_norm").emit(row)


def inverse_rms(e: Emit, sum_of_squares: Value, width: Value, eps: Value) -> Value:
    """1 / √(mean + ε), float32; width int64."""
    mean = e.b.fdiv(sum_of_squares, e.b.sitofp(width, F32))
    root = e.call("llvm.sqrt.f32", F32, e.b.fadd(mean, eps))
    return e.b.fdiv(ir.Constant(F32, 1.0), root)


def normed(e: Emit, kind: str, x: Value, inverse: Value, weight: Value) -> Value:
    """x / rms, rounded, times the weight; `inverse` and `weight` as vectors."""
    return e.b.fmul(e.round_to(kind, e.b.fmul(x, inverse)), weight)


class _Row:
    """The body of a kernel."""

    def __init__(self, e: Emit, kind: str, args: Value, *, adding: bool) -> None:
        self.e, self.kind, self.adding = e, kind, adding
        self.itemsize = 4 if kind == "fp32" else 2
        self.words = [word(e, args, i) for i in range(EPS + 1)]
        self.eps = e.load(F32, e.at(args, 8 * EPS), 8)
        self.sums = [e.b.alloca(ir.VectorType(F32, LANES)) for _ in range(PARTIAL_SUMS)]

    def emit(self, row: Value) -> None:
        b = self.e.b
        row_bytes = b.mul(self.words[WIDTH], const(self.itemsize))
        x = b.add(self.words[X], b.mul(row, self.words[X_STRIDE]))
        residual, out = (b.add(self.words[i], b.mul(row, row_bytes)) for i in (RESIDUAL, OUT))
        total = self._sum_of_squares(x, residual)
        self._write(residual if self.adding else x, total, out)

    def _sum_of_squares(self, x: Value, residual: Value) -> Value:
        e, b, width = self.e, self.e.b, self.words[WIDTH]
        step = PARTIAL_SUMS * LANES
        whole = b.and_(width, const(-step))
        for at in self.sums:
            b.store(splat(F32, 0.0, LANES), at)
        with e.each(const(0), whole, step) as i:
            for k, at in enumerate(self.sums):
                self._add_squares(x, residual, e.at(i, k * LANES), at)
        with e.each(whole, width, LANES) as i:
            self._add_squares(x, residual, i, self.sums[0])
        return sum_lanes(e, e.pairwise(b.fadd, [b.load(at) for at in self.sums]))

    def _add_squares(self, x: Value, residual: Value, i: Value, at: Value) -> None:
        """Squares of the numbers from i on, of the new residual if there is one."""
        e, b = self.e, self.e.b
        values = self._load(x, i)
        if self.adding:
            values = e.round_to(self.kind, b.fadd(values, self._load(residual, i)))
            e.store_floats(self.kind, values, self._address(residual, i))
        b.store(fma(e, values, values, b.load(at)), at)

    def _write(self, x: Value, total: Value, out: Value) -> None:
        e, width = self.e, self.words[WIDTH]
        inverse = e.broadcast(inverse_rms(e, total, width, self.eps), LANES)
        with e.each(const(0), width, LANES) as i:
            values = normed(e, self.kind, self._load(x, i), inverse, self._load(self.words[WEIGHT], i))
            e.store_floats(self.kind, values, self._address(out, i))

    def _load(self, row: Value, i: Value) -> Value:
        return self.e.load_floats(self.kind, self._address(row, i), LANES)

    def _address(self, row: Value, i: Value) -> Value:
        return self.e.b.add(row, self.e.b.mul(i, const(self.itemsize)))
