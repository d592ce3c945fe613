"""What torch and the compiled kernels can do on this machine, found out by trying; results are JSON-ready.

Called by `jobs/doctor/` in a process of its own: a driver that hangs or a kernel that crashes takes only that process
with it. Knows nothing of how results are judged.
"""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from llmcli_kernels import KernelSet

ROWS, WIDTH, OUTPUTS, GROUP = 5, 256, 72, 128  # small, and no whole number of tiles
EPS = 1e-5


def torch_facts() -> dict[str, Any]:
    """The build of torch, and the GPU that it would use, as `runtime.gpu.find_gpu` tells it.

    Returns:
        "version", "cuda" (None for a build without), "threads", "import_s"; and "gpu" (fields of GpuFacts) or "no_gpu"
        (fields of NoGpu), the other one None.
    """
    from llmcli.gpu_facts import GpuFacts
    from llmcli.runtime.gpu import find_gpu

    started = time.monotonic()
    import torch

    import_s = time.monotonic() - started
    found = find_gpu()
    usable = isinstance(found, GpuFacts)
    return {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "import_s": import_s,
        "gpu": asdict(found) if usable else None,
        "no_gpu": None if usable else asdict(found),
    }


def native_facts() -> dict[str, Any]:
    """The native kernels of this processor, compiled, run, and compared with the reference.

    Returns:
        "machines" (those of llmcli_kernels.native that the processor is, best first), "trouble" (why torch's own
        operators are used, or None), "seconds", "errors" (see `try_kernels`), "folder" of compiled code or None.
    """
    from llmcli_kernels import select

    started = time.monotonic()
    kernels = select("cpu", "cpu")
    errors = try_kernels(kernels, "cpu", "bfloat16")
    seconds = time.monotonic() - started
    trouble = kernels.trouble()
    from llmcli_kernels.native.machine import machines_here
    from llmcli_kernels.native.object_cache import default_folder

    folder = default_folder()
    return {
        "machines": machines_here(),
        "trouble": trouble,
        "seconds": seconds,
        "errors": errors,
        "folder": None if folder is None else str(folder),
    }


def triton_facts(device: str = "cuda") -> dict[str, Any]:
    """Triton's kernels, compiled, run on the GPU, and compared with the reference.

    Args:
        device: where the tensors are; "cpu" only for Triton's interpreter.

    Returns:
        "triton" (its version), "seconds", "errors" (see `try_kernels`), "folder" of compiled kernels.
    """
    from llmcli_kernels import select
    from llmcli_kernels.triton_toolchain import cache_folder, version

    started = time.monotonic()
    errors = try_kernels(select("cuda", "triton"), device, "float16")
    return {
        "triton": version(),
        "seconds": time.monotonic() - started,
        "errors": errors,
        "folder": str(cache_folder()),
    }


def try_kernels(kernels: "KernelSet", device: str, dtype: str) -> dict[str, float]:
    """Run three operations on small tensors: name -> largest error, as a share of the largest right value."""
    import torch

    from llmcli_kernels import Int4Weight, select

    random = torch.Generator().manual_seed(0)
    right = select("cpu", "reference")
    x = torch.randn(ROWS, WIDTH, generator=random).to(getattr(torch, dtype))
    scale = torch.rand(WIDTH, generator=random).to(x.dtype)
    groups = (OUTPUTS, WIDTH // GROUP)
    weight = Int4Weight(
        q=torch.randint(0, 256, (OUTPUTS, WIDTH // 2), generator=random, dtype=torch.uint8),
        zeros=torch.randint(0, 16, groups, generator=random, dtype=torch.uint8),
        scales=torch.rand(groups, generator=random).add_(0.1).half(),
        group_size=GROUP,
    )
    there = Int4Weight(
        q=weight.q.to(device),
        zeros=weight.zeros.to(device),
        scales=weight.scales.to(device),
        group_size=GROUP,
    )
    return {
        "rms_norm": _error(
            kernels.rms_norm(x.to(device), scale.to(device), EPS), right.rms_norm(x, scale, EPS)
        ),
        "silu_mul": _error(kernels.silu_mul(x.to(device)), right.silu_mul(x)),
        "int4_linear": _error(
            kernels.int4_linear(x.to(device), kernels.pack_int4(there, x.dtype), None),
            right.int4_linear(x, right.pack_int4(weight, x.dtype), None),
        ),
    }


def _error(result: Any, right: Any) -> float:
    """NaN where the result has one."""
    from llmcli_kernels.activations import Partials

    whole = result.parts.sum(0) if isinstance(result, Partials) else result
    got: Tensor = whole.to("cpu").float()
    wanted: Tensor = right.float()
    return float((got - wanted).abs().max() / wanted.abs().max())
