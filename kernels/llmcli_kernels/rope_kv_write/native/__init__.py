"""Head norms, rotary embedding and the cache write in one pass over a row, as a native kernel.

Owns the operation and a stage's words; `kernel` has the code, `storage` the rounding to 8 bits. Without a norm the bits
are the reference's; with one, squares are added in another order.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from llmcli_kernels.native.host import Host
from llmcli_kernels.native.kernel import Stage, words
from llmcli_kernels.native.math import KINDS, float_word
from llmcli_kernels.paged_kv import PagedKV
from llmcli_kernels.rope_kv_write import QKNorm
from llmcli_kernels.rope_kv_write.native.kernel import Variant, emit

MOST_HEAD_SIZE = 512  # a head is unrolled
STORAGES = {torch.int8: "int8", torch.float8_e4m3fn: "fp8"}

Operation = Callable[[Tensor, Tensor, Tensor, Tensor, PagedKV, int, QKNorm | None], Tensor]


class NativeRopeKvWrite:
    """The operation; the fallback does what `covers` does not."""

    def __init__(self, host: Host, fallback: Operation) -> None:
        self._host, self._fallback = host, fallback

    def __call__(
        self,
        qkv: Tensor,
        positions: Tensor,
        slots: Tensor,
        cos_sin: Tensor,
        kv: PagedKV,
        num_heads: int,
        qk_norm: QKNorm | None,
    ) -> Tensor:
        if not covers(qkv.dtype, kv, cos_sin.shape[1]):
            return self._fallback(qkv, positions, slots, cos_sin, kv, num_heads, qk_norm)
        _check_range("position", positions, cos_sin.shape[0])
        _check_range("slot", slots, kv.keys.shape[0] * kv.block_size)
        # The words that the kernel's point at.
        step = words(positions.data_ptr(), slots.data_ptr(), qkv.shape[0])
        positions_at, slots_at, rows_at = (step.data_ptr() + 8 * i for i in range(3))
        write = stage(
            self._host,
            qkv.dtype,
            qkv=qkv.data_ptr(),
            qkv_stride=qkv.stride(0) * qkv.element_size(),
            positions_at=positions_at,
            slots_at=slots_at,
            rows_at=rows_at,
            cos_sin=cos_sin,
            kv=kv,
            num_heads=num_heads,
            qk_norm=qk_norm,
        )
        self._host.run(write)
        return qkv.unflatten(1, (-1, kv.head_size))[:, :num_heads]


def covers(dtype: torch.dtype, kv: PagedKV, rotary_size: int) -> bool:
    """Blocks of 2^n tokens, heads that are whole vectors, and so are the halves that are rotated."""
    size, block = kv.head_size, kv.block_size
    variant = Variant("", "", size, rotary_size, norm=False)
    return dtype in KINDS and variant.lanes > 0 and size <= MOST_HEAD_SIZE and block & (block - 1) == 0


def stage(
    host: Host,
    dtype: torch.dtype,
    *,
    qkv: int,
    qkv_stride: int,
    positions_at: int,
    slots_at: int,
    rows_at: int,
    cos_sin: Tensor,
    kv: PagedKV,
    num_heads: int,
    qk_norm: QKNorm | None,
) -> Stage:
    """One layer's write; the words are explained in `kernel`. Keep the tensors alive."""
    kind = KINDS[dtype]
    storage = STORAGES.get(kv.keys.dtype, kind)
    variant = Variant(kind, storage, kv.head_size, cos_sin.shape[1], qk_norm is not None)
    compiled = host.compile(f"rope_kv_write {variant}", lambda module, _: emit(module, variant))
    scales = [0 if part is None else part.data_ptr() for part in (kv.key_scales, kv.value_scales)]
    norm = [0, 0, 0]
    if qk_norm is not None:
        norm = [qk_norm.q_weight.data_ptr(), qk_norm.k_weight.data_ptr(), float_word(qk_norm.eps)]
    sizes = (num_heads, kv.num_kv_heads, kv.block_size.bit_length() - 1)
    caches = (kv.keys.data_ptr(), kv.values.data_ptr(), *scales)
    args = words(qkv, qkv_stride, positions_at, slots_at, rows_at, cos_sin.data_ptr(), *caches, *sizes, *norm)
    return Stage(compiled.kernel("rope_kv_write"), args)


def _check_range(name: str, numbers: Tensor, limit: int) -> None:
    """Raise an IndexError for one that is outside."""
    if len(numbers):
        low, high = (bound.item() for bound in numbers.aminmax())
        if low < 0 or high >= limit:
            raise IndexError(f"rope_kv_write: {name} {low if low < 0 else high} is not in 0..{limit - 1}")
