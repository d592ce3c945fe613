"""Fast int4 linear with what torch ships: its fused int4 operator for few rows, panels of bfloat16 for many.

Both read the same bytes, laid out as the fused operator wants them (README.md). For float32 and float16
activations the weights are expanded to float32, and only the order of summation differs from the reference.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from llmcli_kernels.int4_linear import Int4Matrix

# Up to here the fused operator beats expanding the weights (Zen 4, one and two threads).
FEW_ROWS = 32
# Weights that a thread expands at a time: few enough for its cache, enough to hide the cost of a call.
PANEL_WEIGHTS = 1 << 19
# Beyond this, Python's lock would keep threads waiting; they get several of torch's threads each instead.
MAX_WORKERS = 4
FUSED_GROUP_SIZES = (256, 128, 64, 32)


@dataclass(frozen=True, eq=False)
class PackedInt4:
    """The nibbles in blocks of columns.

    Attributes:
        blocks: uint8 [N'/B, K, B/2], N' is N rounded up to a multiple of the block size B. Byte i of row k of
            block b holds q[b*B + i, k] in its low nibble and q[b*B + B/2 + i, k] in its high one.
        scale_shift: [K/group_size, N', 2] bfloat16 or float32: w = (q - 8) * scale + shift, where
            shift = (8 - zero) * scale.
        group_size: may be a divisor of the checkpoint's.
        num_rows: N.
        fused: whether torch's operator can read this.
    """

    blocks: Tensor
    scale_shift: Tensor
    group_size: int
    num_rows: int
    fused: bool

    @property
    def N(self) -> int:
        return self.num_rows

    @property
    def K(self) -> int:
        return self.blocks.shape[1]

    @property
    def nbytes(self) -> int:
        return self.blocks.nbytes + self.scale_shift.nbytes


def pack_int4(weight: Int4Matrix, dtype: torch.dtype) -> PackedInt4:
    weight = weight.plain()
    group_size = next((g for g in FUSED_GROUP_SIZES if weight.group_size % g == 0), weight.group_size)
    block_size = _fused_block_size() if dtype == torch.bfloat16 and group_size in FUSED_GROUP_SIZES else None
    blocks = torch.cat([_to_blocks(part, block_size or 64) for part in weight.q.split(1024)])

    scales, zeros = weight.scales.to(torch.float32), weight.zeros.to(torch.float32)
    scale_shift = torch.stack((scales, (8.0 - zeros) * scales), dim=-1)
    scale_shift = scale_shift.repeat_interleave(weight.group_size // group_size, dim=1).transpose(0, 1)
    padding = blocks.shape[0] * blocks.shape[2] * 2 - weight.N
    scale_shift = torch.nn.functional.pad(scale_shift, (0, 0, 0, padding))
    stored = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
    return PackedInt4(
        blocks, scale_shift.to(stored).contiguous(), group_size, weight.N, block_size is not None
    )


class Int4Linear:
    """The operation, with the threads that expand panels; made once per kernel set.

    A thread takes a panel through all passes on its own: it stays in its core's cache, and threads meet
    once per call. Spread over threads pass by pass, one busy core would hold up every pass of every panel.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._pool_threads = 0

    def __call__(self, x: Tensor, packed: PackedInt4, bias: Tensor | None) -> Tensor:
        if packed.fused and x.dtype == torch.bfloat16 and 0 < x.shape[0] <= FEW_ROWS:
            y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
                x.contiguous(), packed.blocks.view(-1, packed.K // 2), packed.group_size, packed.scale_shift
            )
        else:
            y = self._multiply_panels(x, packed)
        if y.shape[1] != packed.N:
            y = y[:, : packed.N].contiguous()
        return y if bias is None else y.add_(bias)

    def _multiply_panels(self, x: Tensor, packed: PackedInt4) -> Tensor:
        """x @ w.T, expanding some blocks of columns at a time. The result has all N' columns."""
        num_blocks, k, half = packed.blocks.shape
        compute = torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float32
        y = torch.empty(x.shape[0], num_blocks * 2 * half, dtype=compute)
        threads = torch.get_num_threads()
        workers = min(threads, MAX_WORKERS)
        step = max(1, PANEL_WEIGHTS * (threads // workers) // (2 * half * k))
        panels = _Panels(x.to(compute), packed, y, step)
        if workers == 1 or step >= num_blocks:
            panels.work()
        else:
            pool = self._workers(threads, workers)
            for future in [pool.submit(panels.work) for _ in range(workers)]:
                future.result()
        return y.to(x.dtype)

    def _workers(self, threads: int, workers: int) -> ThreadPoolExecutor:
        """A pool whose threads share out torch's; made anew when torch's number has changed."""
        if self._pool is None or self._pool_threads != threads:
            started = threading.Barrier(workers + 1)

            def start() -> None:
                torch.set_num_threads(threads // workers)
                started.wait()

            self._pool, self._pool_threads = ThreadPoolExecutor(workers, "int4_linear"), threads
            for _ in range(workers):
                self._pool.submit(start)
            started.wait()
            # The number is a thread's own, but also what threads made later start with: put it back.
            torch.set_num_threads(threads)
        return self._pool


class _Panels:
    """The panels of one product, taken by any number of threads until none is left."""

    def __init__(self, x: Tensor, packed: PackedInt4, y: Tensor, step: int) -> None:
        self._x, self._packed, self._y, self._step = x, packed, y, step
        self._starts = iter(range(0, packed.blocks.shape[0], step))
        self._lock = threading.Lock()

    @torch.inference_mode()
    def work(self) -> None:
        num_blocks, k, half = self._packed.blocks.shape
        wide = torch.empty(min(self._step, num_blocks) * 2 * half * k, dtype=torch.float32)
        narrow = wide if self._y.dtype == torch.float32 else torch.empty_like(wide, dtype=self._y.dtype)
        while (start := self._next()) is not None:
            stop = min(start + self._step, num_blocks)
            columns = slice(start * 2 * half, stop * 2 * half)
            size = (stop - start) * 2 * half * k
            _expand(self._packed, start, stop, wide[:size].view(k, -1))
            if narrow is not wide:
                narrow[:size].copy_(wide[:size])
            self._y[:, columns] = torch.mm(self._x, narrow[:size].view(k, -1))

    def _next(self) -> int | None:
        with self._lock:
            return next(self._starts, None)


def _expand(packed: PackedInt4, start: int, stop: int, out: Tensor) -> None:
    """The weights of blocks start .. stop-1, transposed, to out float32 [K, columns]."""
    blocks, block_size = packed.blocks[start:stop], 2 * packed.blocks.shape[2]
    halves = zip((blocks & 15).unbind(), (blocks >> 4).unbind(), strict=True)
    out.copy_(torch.cat([half for pair in halves for half in pair], dim=1))

    # Made contiguous: with a stride of two in its inner loop addcmul takes five times as long.
    columns = packed.scale_shift[:, start * block_size : stop * block_size].permute(2, 0, 1).contiguous()
    scale, shift = columns.to(torch.float32).unsqueeze(2)
    grouped = out.view(-1, packed.group_size, out.shape[1])
    torch.addcmul(torch.sub(shift, scale, alpha=8), grouped, scale, out=grouped)


def _to_blocks(q: Tensor, block_size: int) -> Tensor:
    """Int4Weight.q of some rows in blocks; rows are added to fill the last one."""
    missing = -q.shape[0] % block_size
    q = torch.nn.functional.pad(q, (0, 0, 0, missing))
    integers = torch.stack((q & 15, q >> 4), dim=-1).view(-1, 2, block_size // 2, q.shape[1] * 2)
    return (integers[:, 0] | integers[:, 1] << 4).transpose(1, 2).contiguous()


def _fused_block_size() -> int | None:
    """The block size that makes this layout the one of torch's operator here, found with a probe; or None."""
    probe = torch.arange(64 * 4).view(64, 4).mul(7).remainder(16)
    natural = (probe[:, 0::2] | probe[:, 1::2] << 4).to(torch.uint8)
    theirs = torch.ops.aten._convert_weight_to_int4pack_for_cpu(probe.to(torch.int32), 1).flatten()
    return next((size for size in (64, 32) if torch.equal(_to_blocks(natural, size).flatten(), theirs)), None)
