"""`KernelSet`: one function per operation of a forward pass; `select` chooses them for a device.

Owns which sets exist and wraps every implementation with its operation's argument checks. Does not know
models or engines. The engine's builder calls `select` once and passes the set down; tests ask for
"reference" by name.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from llmcli_kernels.activations import LinearOutput
from llmcli_kernels.attend import Attend, check_attend, in_turn
from llmcli_kernels.decoder import DecoderParts, FusedDecoder, no_fusion
from llmcli_kernels.int4_linear import Int4Matrix, check_int4_linear, check_pack_int4
from llmcli_kernels.int8_linear import check_int8_linear, check_pack_int8
from llmcli_kernels.paged_attention import AttentionBatch, check_paged_attention
from llmcli_kernels.paged_kv import PagedKV
from llmcli_kernels.rms_norm import check_add_rms_norm, check_rms_norm
from llmcli_kernels.rope_kv_write import QKNorm, check_rope_kv_write
from llmcli_kernels.sampling import SamplingBatch, check_sample
from llmcli_kernels.silu_mul import check_silu_mul

if TYPE_CHECKING:
    from llmcli_kernels.native.host import Host

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class KernelSet:
    """The operations, documented in the package of the same name; every one raises ValueError for unfit
    arguments.

    Attributes:
        name: which implementations these are.
        device: the kind of device they run on.
        reads_lengths: whether they can be captured in a graph, see `AttentionBatch.lengths`.
        trouble: tells why a set that should have native kernels uses torch's instead, as far as is known yet; or None.
    """

    name: str
    device: str
    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    add_rms_norm: Callable[[LinearOutput, Tensor, Tensor, float], Tensor]
    rope_kv_write: Callable[[LinearOutput, Tensor, Tensor, Tensor, PagedKV, int, QKNorm | None], Tensor]
    paged_attention: Callable[[Tensor, PagedKV, AttentionBatch, float, int | None, float | None], Tensor]
    attend: Attend
    pack_int4: Callable[[Int4Matrix, torch.dtype], Any]
    int4_linear: Callable[[Tensor, Any, Tensor | None], LinearOutput]
    pack_int8: Callable[[Tensor], Any]
    int8_linear: Callable[[Tensor, Any], Tensor]
    silu_mul: Callable[[LinearOutput], Tensor]
    sample: Callable[[Tensor, SamplingBatch], tuple[Tensor, Tensor]]
    fuse_decoder: Callable[[DecoderParts, tuple[PagedKV, ...]], FusedDecoder | None] = no_fusion
    reads_lengths: bool = False
    trouble: Callable[[], str | None] = lambda: None


def select(device: str, name: str = "auto", *, tuning_file: Path | None = None) -> KernelSet:
    """The kernel set of a device.

    Args:
        device: "cpu" or "cuda".
        name: "auto" (the fastest one for the device) or one of
            cpu: "cpu", "avx2" (the same as on a processor with nothing better), "torch" (only what torch ships: 4-bit
            layers with bfloat16 activations are then exact up to bfloat16 rounding), "reference" (plain float32
            PyTorch, slow);
            cuda: "triton", "reference".
        tuning_file: rows of a user's own that the Triton kernels' table starts with, see `tuning.py`.

    Raises:
        ValueError: there is no such set; the message lists those that exist.
    """
    builders = _BUILDERS.get(device, {})
    chosen = next(iter(builders), name) if name == "auto" else name
    if chosen not in builders:
        known = "; ".join(f"{kind}: auto, {', '.join(sets)}" for kind, sets in _BUILDERS.items())
        raise ValueError(f"no kernel set {name!r} for device {device!r}; there are {known}")
    return replace(builders[chosen](tuning_file), device=device)


def _reference_set(_: Path | None) -> KernelSet:
    from llmcli_kernels.int4_linear import reference as int4_linear
    from llmcli_kernels.int8_linear import reference as int8_linear
    from llmcli_kernels.paged_attention import reference as paged_attention
    from llmcli_kernels.rms_norm import reference as rms_norm
    from llmcli_kernels.rope_kv_write import reference as rope_kv_write
    from llmcli_kernels.sampling import reference as sampling
    from llmcli_kernels.silu_mul import reference as silu_mul

    return _assemble(
        name="reference",
        rms_norm=rms_norm.rms_norm,
        add_rms_norm=rms_norm.add_rms_norm,
        rope_kv_write=rope_kv_write.rope_kv_write,
        paged_attention=paged_attention.paged_attention,
        pack_int4=int4_linear.pack_int4,
        int4_linear=int4_linear.int4_linear,
        pack_int8=int8_linear.pack_int8,
        int8_linear=int8_linear.int8_linear,
        silu_mul=silu_mul.silu_mul,
        sample=sampling.sample,
    )


def _torch_set(_: Path | None) -> KernelSet:
    from llmcli_kernels.int4_linear import cpu as int4_linear
    from llmcli_kernels.int8_linear import cpu as int8_linear
    from llmcli_kernels.paged_attention import cpu as paged_attention
    from llmcli_kernels.rms_norm import cpu as rms_norm
    from llmcli_kernels.rope_kv_write import cpu as rope_kv_write
    from llmcli_kernels.sampling import cpu as sampling
    from llmcli_kernels.silu_mul import cpu as silu_mul

    return _assemble(
        name="torch",
        rms_norm=rms_norm.rms_norm,
        add_rms_norm=rms_norm.add_rms_norm,
        rope_kv_write=rope_kv_write.rope_kv_write,
        paged_attention=paged_attention.paged_attention,
        pack_int4=int4_linear.pack_int4,
        int4_linear=int4_linear.Int4Linear(),
        pack_int8=int8_linear.pack_int8,
        int8_linear=int8_linear.int8_linear,
        silu_mul=silu_mul.silu_mul,
        sample=sampling.sample,
    )


def _cpu_set(tuning_file: Path | None, machine: str | None = None) -> KernelSet:
    """The torch set, with native kernels for all that they can do; of a machine by name, or the best that this is."""
    torch_set = replace(_torch_set(tuning_file), name=machine or "cpu")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return torch_set  # all that there is for this machine: no trouble
    try:
        from llmcli_kernels.native.host import Host
        from llmcli_kernels.native.machine import machines_here
        from llmcli_kernels.native.object_cache import default_folder

        if not machines_here():
            return torch_set
        host = Host(default_folder(), machine)
    except Exception as error:  # whatever it is, torch can do the work
        missing = isinstance(error, ModuleNotFoundError) and error.name == "llvmlite"
        reason = "llvmlite is not installed" if missing else f"llvmlite does not work here, {error}"
        return replace(torch_set, trouble=lambda: reason)
    return _with_native_kernels(host, torch_set)


def _with_native_kernels(host: "Host", torch_set: KernelSet) -> KernelSet:
    from llmcli_kernels.decoder.native import fuse
    from llmcli_kernels.int4_linear.native import NativeInt4Linear
    from llmcli_kernels.int8_linear.native import NativeInt8Linear
    from llmcli_kernels.paged_attention.native import NativePagedAttention
    from llmcli_kernels.rms_norm.native import NativeAddRmsNorm, NativeRmsNorm
    from llmcli_kernels.rope_kv_write.native import NativeRopeKvWrite
    from llmcli_kernels.sampling.native import NativeSample
    from llmcli_kernels.silu_mul.native import NativeSiluMul

    int4 = NativeInt4Linear(host, torch_set.pack_int4, torch_set.int4_linear)
    int8 = NativeInt8Linear(host, torch_set.pack_int8, torch_set.int8_linear)
    native = _assemble(
        name=torch_set.name,
        rms_norm=NativeRmsNorm(host, torch_set.rms_norm),
        add_rms_norm=NativeAddRmsNorm(host, torch_set.add_rms_norm),
        rope_kv_write=NativeRopeKvWrite(host, torch_set.rope_kv_write),
        paged_attention=NativePagedAttention(host, torch_set.paged_attention),
        pack_int4=int4.pack_int4,
        int4_linear=int4,
        pack_int8=int8.pack_int8,
        int8_linear=int8,
        silu_mul=NativeSiluMul(host, torch_set.silu_mul),
        sample=NativeSample(host),
    )
    return replace(
        native,
        fuse_decoder=lambda parts, kvs: fuse(host, int4, int8, parts, kvs),
        trouble=lambda: int4.unavailable and f"compiled kernels do not work here, {int4.unavailable}",
    )


def _triton_set(tuning_file: Path | None) -> KernelSet:
    from llmcli_kernels.gpu import current_gpu
    from llmcli_kernels.int4_linear.triton_linear import TritonInt4Linear
    from llmcli_kernels.int8_linear import reference as int8_linear
    from llmcli_kernels.paged_attention.triton_attention import TritonPagedAttention
    from llmcli_kernels.rms_norm import triton_rms_norm
    from llmcli_kernels.rope_kv_write import triton_rope_kv_write
    from llmcli_kernels.sampling import triton_sampling
    from llmcli_kernels.silu_mul import triton_silu_mul
    from llmcli_kernels.tuning import load_table

    gpu = current_gpu()
    table = load_table(gpu.capability, tuning_file)
    int4, attention = TritonInt4Linear(table, gpu), TritonPagedAttention(table, gpu)
    triton_set = _assemble(
        name="triton",
        rms_norm=triton_rms_norm.rms_norm,
        add_rms_norm=triton_rms_norm.add_rms_norm,
        rope_kv_write=triton_rope_kv_write.rope_kv_write,
        paged_attention=attention,
        attend=attention.attend,
        pack_int4=int4.pack_int4,
        int4_linear=int4,
        pack_int8=int8_linear.pack_int8,
        int8_linear=int8_linear.int8_linear,
        silu_mul=triton_silu_mul.silu_mul,
        sample=triton_sampling.sample,
    )
    return replace(triton_set, reads_lengths=True)


def _assemble(name: str, **operations: Callable[..., Any]) -> KernelSet:
    """A set of one implementation of each operation, its checks in front; without `attend` its parts do the work."""
    checked = {field: _checked(_CHECKS[field], run) for field, run in operations.items()}
    checked.setdefault("attend", in_turn(checked["rope_kv_write"], checked["paged_attention"]))
    return KernelSet(name=name, device="", **checked)


def _checked(check: Callable[P, None], run: Callable[P, R]) -> Callable[P, R]:
    """`run` with its argument checks in front."""

    def operation(*args: P.args, **kwargs: P.kwargs) -> R:
        check(*args, **kwargs)
        return run(*args, **kwargs)

    return operation


_CHECKS: dict[str, Callable[..., None]] = {
    "rms_norm": check_rms_norm,
    "add_rms_norm": check_add_rms_norm,
    "rope_kv_write": check_rope_kv_write,
    "paged_attention": check_paged_attention,
    "attend": check_attend,
    "pack_int4": check_pack_int4,
    "int4_linear": check_int4_linear,
    "pack_int8": check_pack_int8,
    "int8_linear": check_int8_linear,
    "silu_mul": check_silu_mul,
    "sample": check_sample,
}

# The first set of a device is its "auto".
_BUILDERS: dict[str, dict[str, Callable[[Path | None], KernelSet]]] = {
    "cpu": {
        "cpu": _cpu_set,
        "avx2": partial(_cpu_set, machine="avx2"),
        "torch": _torch_set,
        "reference": _reference_set,
    },
    "cuda": {"triton": _triton_set, "reference": _reference_set},
}
