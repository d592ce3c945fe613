"""`KernelSet`: one function per operation of a forward pass; `select` chooses them for a device.

Owns which sets exist and wraps every implementation with its operation's argument checks. Does not know
models or engines. The engine's builder calls `select` once and passes the set down; tests ask for
"reference" by name.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from llmcli_kernels.int4_linear import Int4Weight, check_int4_linear, check_pack_int4
from llmcli_kernels.kv_write import check_kv_write
from llmcli_kernels.paged_attention import AttentionBatch, check_paged_attention
from llmcli_kernels.rms_norm import check_add_rms_norm, check_rms_norm
from llmcli_kernels.rope import check_rope
from llmcli_kernels.sampling import SamplingBatch, check_sample
from llmcli_kernels.silu_mul import check_silu_mul

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class KernelSet:
    """The operations, documented in the package of the same name; every one raises ValueError for unfit
    arguments.

    Attributes:
        name: which implementations these are.
        device: the kind of device they run on.
    """

    name: str
    device: str
    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    rope: Callable[[Tensor, Tensor, Tensor, Tensor], None]
    kv_write: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]
    paged_attention: Callable[[Tensor, Tensor, Tensor, AttentionBatch, float, int | None], Tensor]
    pack_int4: Callable[[Int4Weight, torch.dtype], Any]
    int4_linear: Callable[[Tensor, Any, Tensor | None], Tensor]
    silu_mul: Callable[[Tensor], Tensor]
    sample: Callable[[Tensor, SamplingBatch], tuple[Tensor, Tensor]]


def select(device: str, name: str = "auto") -> KernelSet:
    """The kernel set of a device.

    Args:
        device: "cpu".
        name: "auto" (the fastest one for the device), "cpu", "torch" (only what torch ships: 4-bit layers with
            bfloat16 activations are then exact up to bfloat16 rounding), or "reference" (plain float32 PyTorch, slow).

    Raises:
        ValueError: there is no such set; the message lists those that exist.
    """
    builders = _BUILDERS.get(device, {})
    chosen = next(iter(builders), name) if name == "auto" else name
    if chosen not in builders:
        known = "; ".join(f"{kind}: auto, {', '.join(sets)}" for kind, sets in _BUILDERS.items())
        raise ValueError(f"no kernel set {name!r} for device {device!r}; there are {known}")
    return builders[chosen]()


def _reference_set() -> KernelSet:
    from llmcli_kernels.int4_linear import reference as int4_linear
    from llmcli_kernels.kv_write import reference as kv_write
    from llmcli_kernels.paged_attention import reference as paged_attention
    from llmcli_kernels.rms_norm import reference as rms_norm
    from llmcli_kernels.rope import reference as rope
    from llmcli_kernels.sampling import reference as sampling
    from llmcli_kernels.silu_mul import reference as silu_mul

    modules = (rms_norm, rope, kv_write, paged_attention, silu_mul, sampling)
    return _assemble("reference", modules, int4_linear.pack_int4, int4_linear.int4_linear)


def _torch_set() -> KernelSet:
    from llmcli_kernels.int4_linear import cpu as int4_linear
    from llmcli_kernels.kv_write import reference as kv_write  # nothing faster was found
    from llmcli_kernels.paged_attention import cpu as paged_attention
    from llmcli_kernels.rms_norm import cpu as rms_norm
    from llmcli_kernels.rope import cpu as rope
    from llmcli_kernels.sampling import cpu as sampling
    from llmcli_kernels.silu_mul import cpu as silu_mul

    modules = (rms_norm, rope, kv_write, paged_attention, silu_mul, sampling)
    return _assemble("torch", modules, int4_linear.pack_int4, int4_linear.Int4Linear())


def _cpu_set() -> KernelSet:
    from llmcli_kernels.int4_linear.integer import IntegerInt4Linear
    from llmcli_kernels.int4_linear.integer.object_cache import default_folder

    torch_set = _torch_set()
    int4 = IntegerInt4Linear(torch_set.pack_int4, torch_set.int4_linear, cache_folder=default_folder())
    return replace(
        torch_set,
        name="cpu",
        pack_int4=_checked(check_pack_int4, int4.pack_int4),
        int4_linear=_checked(check_int4_linear, int4),
    )


def _assemble(
    name: str,
    modules: tuple[Any, Any, Any, Any, Any, Any],
    pack_int4: Callable[[Int4Weight, torch.dtype], Any],
    int4_linear: Callable[[Tensor, Any, Tensor | None], Tensor],
) -> KernelSet:
    """A CPU set of one implementation module for each operation, in the order of the fields, and int4's own two."""
    rms_norm, rope, kv_write, paged_attention, silu_mul, sampling = modules
    return KernelSet(
        name=name,
        device="cpu",
        rms_norm=_checked(check_rms_norm, rms_norm.rms_norm),
        add_rms_norm=_checked(check_add_rms_norm, rms_norm.add_rms_norm),
        rope=_checked(check_rope, rope.rope),
        kv_write=_checked(check_kv_write, kv_write.kv_write),
        paged_attention=_checked(check_paged_attention, paged_attention.paged_attention),
        pack_int4=_checked(check_pack_int4, pack_int4),
        int4_linear=_checked(check_int4_linear, int4_linear),
        silu_mul=_checked(check_silu_mul, silu_mul.silu_mul),
        sample=_checked(check_sample, sampling.sample),
    )


def _checked(check: Callable[P, None], run: Callable[P, R]) -> Callable[P, R]:
    """`run` with its argument checks in front."""

    @functools.wraps(run)
    def operation(*args: P.args, **kwargs: P.kwargs) -> R:
        check(*args, **kwargs)
        return run(*args, **kwargs)

    return operation


# The first set of a device is its "auto".
_BUILDERS: dict[str, dict[str, Callable[[], KernelSet]]] = {
    "cpu": {"cpu": _cpu_set, "torch": _torch_set, "reference": _reference_set}
}
