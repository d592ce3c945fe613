"""One call of the Triton kernels for paged attention, as their host code sees it.

Owns the sizes that kernels are compiled for, the arguments that both have, and the form of either for compilation
ahead of time. Knows no kernel. Called by triton_attention.py, triton_decode.py and triton_prefill.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from llmcli_kernels.aot import AotVariant
from llmcli_kernels.paged_kv import LARGEST, PagedKV
from llmcli_kernels.rope_kv_write import QKNorm

LOG2E = 1.4426950408889634  # the softmax is in base 2
SMALLEST_DOT = 16
TRITON_TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
STORAGES = {torch.int8: "int8", torch.float8_e4m3fn: "fp8"}


@dataclass(frozen=True, eq=False)
class Sequences:
    """What a step has on the device: int32 query_starts [S+1], kv_lens [S], block_tables [S, blocks]."""

    query_starts: Tensor
    kv_lens: Tensor
    block_tables: Tensor


@dataclass(frozen=True)
class Heads:
    """The sizes of a layer's attention and the types it computes and stores in.

    Attributes:
        capability: of the GPU, (9, 0) for sm_90; (0, 0) where NVIDIA's inline assembly can not be used.
    """

    num_heads: int
    num_kv_heads: int
    head_size: int
    block_size: int
    dtype: torch.dtype
    storage: torch.dtype
    capability: tuple[int, int]

    @property
    def group(self) -> int:
        """Query heads that share a head of keys."""
        return self.num_heads // self.num_kv_heads

    @property
    def quantized(self) -> bool:
        return self.storage in STORAGES

    @property
    def words(self) -> int:
        """Of a row of the cache."""
        return self.head_size // 2 if self.quantized else self.head_size

    def constants(self, tile: int) -> dict[str, Any]:
        """What a kernel that works on tiles of so many keys is compiled for."""
        first, second = pieces(self.words)
        return {
            "HKV": self.num_kv_heads,
            "G": self.group,
            "D": self.head_size,
            "W1": first,
            "W2": second,
            "BLOCK": self.block_size,
            "RUN": min(self.block_size & -self.block_size, tile),
            "T": tile,
            "STORAGE": STORAGES.get(self.storage, "plain"),
            "CONVERT": self._conversion(),
        }

    @property
    def kv_bytes(self) -> int:
        """Of an element as tables of tile sizes know it: float32 needs small tiles, whatever the cache holds."""
        return 4 if self.dtype == torch.float32 else self.storage.itemsize

    def _conversion(self) -> int:
        if not self.quantized or self.dtype == torch.float32 or self.capability < (8, 0):
            return 0
        return 89 if self.capability >= (8, 9) else 80


@dataclass(frozen=True, eq=False)
class Unrotated:
    """What q, and the last key and value of each sequence, are made of: values and rotation of `rope_kv_write`.

    Attributes:
        parts: [S, T, (HQ + 2 HKV) · D], summands of the merged qkv in float32, or itself where S is 1.
    """

    parts: Tensor
    cos_sin: Tensor
    qk_norm: QKNorm | None


@dataclass(frozen=True, eq=False)
class Call:
    """The arguments of one call of `paged_attention` and where its result goes.

    Attributes:
        q: [T, HQ, D]; with `unrotated` any tensor of this form, which is not read.
        unrotated: for the decode kernel, and sequences of one query.
    """

    q: Tensor
    kv: PagedKV
    heads: Heads
    sequences: Sequences
    out: Tensor
    scale: float
    sliding_window: int | None
    softcap: float | None
    unrotated: Unrotated | None = None

    def arguments(self) -> dict[str, Any]:
        """Arguments that both kernels have."""
        kv, tables = self.kv, self.sequences.block_tables
        factor, cap = score_factors(self.scale, self.softcap)
        return {
            "q_ptr": self.q,
            "q_stride_token": self.q.stride(0),
            "q_stride_head": self.q.stride(1),
            "keys_ptr": kv.keys.view(torch.int16) if kv.quantized else kv.keys,
            "values_ptr": kv.values.view(torch.int16) if kv.quantized else kv.values,
            "key_scales_ptr": kv.key_scales,
            "value_scales_ptr": kv.value_scales,
            "starts_ptr": self.sequences.query_starts,
            "lens_ptr": self.sequences.kv_lens,
            "tables_ptr": tables,
            "table_stride": tables.stride(0),
            "factor": factor,
            "cap": cap,
            "window": self.sliding_window,
        }

    def rotation(self) -> dict[str, Any]:
        """Arguments of the decode kernel alone: where q comes from, and how keys and values are stored."""
        source, kv = self.unrotated, self.kv
        if source is None:
            return {**dict.fromkeys(ROTATION_ARGUMENTS), **NO_ROTATION}
        norm = source.qk_norm
        bytes_of = {torch.int8: torch.int8, torch.float8_e4m3fn: torch.uint8}.get(kv.keys.dtype)
        return {
            "qkv_ptr": source.parts,
            "qkv_stride_part": source.parts.stride(0),
            "qkv_stride_token": source.parts.stride(1),
            "cos_sin_ptr": source.cos_sin,
            "q_weight_ptr": None if norm is None else norm.q_weight,
            "k_weight_ptr": None if norm is None else norm.k_weight,
            "eps": None if norm is None else norm.eps,
            "stored_keys_ptr": kv.keys if bytes_of is None else kv.keys.view(bytes_of),
            "stored_values_ptr": kv.values if bytes_of is None else kv.values.view(bytes_of),
            "SUMMANDS": source.parts.shape[0],
            "R": source.cos_sin.shape[1],
            "LARGEST": LARGEST.get(kv.keys.dtype, 0.0),
            "PADDED_D": triton.next_power_of_2(kv.head_size),
        }


ROTATION_ARGUMENTS = (
    "qkv_ptr",
    "qkv_stride_part",
    "qkv_stride_token",
    "cos_sin_ptr",
    "q_weight_ptr",
    "k_weight_ptr",
    "eps",
    "stored_keys_ptr",
    "stored_values_ptr",
)
NO_ROTATION: Mapping[str, Any] = {"SUMMANDS": 0, "R": 0, "LARGEST": 0.0, "PADDED_D": 0}


@dataclass(frozen=True)
class AotCase:
    """Sizes and types to compile a kernel for ahead of time."""

    head_size: int = 128
    group: int = 4
    max_queries: int = 1
    dtype: torch.dtype = torch.float16
    storage: torch.dtype | None = None  # that of dtype
    has_window: bool = False
    has_softcap: bool = False
    splits: bool = True
    summands: int = 0  # of what q, keys and values are made of; 0 where q is there
    has_norm: bool = False

    def heads(self, capability: tuple[int, int]) -> Heads:
        storage = self.storage or self.dtype
        return Heads(8 * self.group, 8, self.head_size, 16, self.dtype, storage, capability)

    def __str__(self) -> str:
        storage = "" if self.storage is None else f" cache {STORAGES[self.storage]}"
        extras = (
            [" window"] * self.has_window
            + [" soft cap"] * self.has_softcap
            + [" one split"] * (not self.splits)
            + [f" of {self.summands} summands"] * (self.summands > 0)
            + [" head norm"] * self.has_norm
        )
        return f"{TRITON_TYPES[self.dtype]}{storage} head size {self.head_size}{''.join(extras)}"

    def signature(self) -> dict[str, str | None]:
        """Triton types of what `Call.arguments` gives, None for an argument that is None."""
        dtype = f"*{TRITON_TYPES[self.dtype]}"
        stored = dtype if self.storage is None else "*i16"
        scales = None if self.storage is None else "*fp32"
        return {
            "q_ptr": dtype,
            "q_stride_token": "i32",
            "q_stride_head": "i32",
            "keys_ptr": stored,
            "values_ptr": stored,
            "key_scales_ptr": scales,
            "value_scales_ptr": scales,
            "starts_ptr": "*i32",
            "lens_ptr": "*i32",
            "tables_ptr": "*i32",
            "table_stride": "i32",
            "factor": "fp32",
            "cap": "fp32" if self.has_softcap else None,
            "window": "i32" if self.has_window else None,
        }

    def rotation(self) -> tuple[dict[str, str | None], Mapping[str, Any]]:
        """Types of what `Call.rotation` gives, and its constants."""
        if not self.summands:
            return dict.fromkeys(ROTATION_ARGUMENTS), NO_ROTATION
        dtype = f"*{TRITON_TYPES[self.dtype]}"
        stored = dtype if self.storage is None else {torch.int8: "*i8"}.get(self.storage, "*u8")
        norm = dtype if self.has_norm else None
        source = "*fp32" if self.summands > 1 else dtype
        eps = "fp32" if self.has_norm else None
        types = (source, "i32", "i32", "*fp32", norm, norm, eps, stored, stored)
        largest = 0.0 if self.storage is None else LARGEST[self.storage]
        constants = {"SUMMANDS": self.summands, "R": self.head_size, "LARGEST": largest}
        constants["PADDED_D"] = triton.next_power_of_2(self.head_size)
        return dict(zip(ROTATION_ARGUMENTS, types, strict=True)), constants


def aot_variant(
    kernel: Any,
    name: str,
    signature: dict[str, str | None],
    constants: dict[str, Any],
    num_warps: int,
    kv_bytes_of_a_trip: int | None = None,
) -> AotVariant:
    """A variant; arguments whose type is None are the constant None."""
    return AotVariant(
        kernel=kernel,
        name=name,
        signature={name: kind for name, kind in signature.items() if kind is not None},
        constants=constants | {name: None for name, kind in signature.items() if kind is None},
        not_divisible=("table_stride", "window", "max_queries", "splits"),
        num_warps=num_warps,
        num_stages=3,  # loops say their own
        unit=None if kv_bytes_of_a_trip is None else "KV byte",
        work=kv_bytes_of_a_trip or 1,
    )


def pieces(words: int) -> tuple[int, int]:
    """Widths, powers of two, of one or two pieces that hold a row: (64, 16) for 80, (128, 0) for 120."""
    low = max(SMALLEST_DOT, 1 << (words.bit_length() - 1))
    rest = max(SMALLEST_DOT, triton.next_power_of_2(words - low))
    if low >= words:
        return low, 0
    return (low, rest) if rest < low else (2 * low, 0)


def score_factors(scale: float, softcap: float | None) -> tuple[float, float | None]:
    """What k · q is multiplied by, and what then the tanh of it is: together scores in base 2."""
    return (scale * LOG2E, None) if softcap is None else (scale / softcap, softcap * LOG2E)


def loop_stages(num_stages: int) -> int:
    """For a loop that loads numbers of blocks before keys and values: each of the two gets half of the stages."""
    return 2 * num_stages - 1
