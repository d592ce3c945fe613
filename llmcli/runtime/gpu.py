"""Looks for a GPU that the engine can run on, and says in words why one can not be used.

Looks for a driver first, so that a machine without one never loads torch for this. What is found is plain data
(`GpuFacts`, `NoGpu`); what to do with it is `plan.resolve`'s decision. Called by `engine/build.py` and `show`.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmcli.errors import quote
from llmcli.gpu_facts import GpuFacts, NoGpu

ROOT = Path("/")
DRIVER_SIGNS = ("dev/nvidiactl", "dev/nvidia0", "proc/driver/nvidia", "usr/lib/wsl/lib/libcuda.so.1")
AMD_SIGN = "dev/kfd"
OLDEST_CAPABILITY = (8, 0)
SEE_SMI = "nvidia-smi tells more"

# What torch's message says, then what we say of it, what helps, and whether there is a GPU all the same.
START_FAILURES = (
    (
        r"No CUDA GPUs are available",
        "torch sees no GPU",
        "CUDA_VISIBLE_DEVICES may hide it; a container must be given it (--gpus all)",
        False,
    ),
    (
        r"Found no NVIDIA driver",
        "torch finds no NVIDIA driver",
        "install the driver; a container must be given the GPU (--gpus all)",
        False,
    ),
    (
        r"out of memory",
        "the GPU has not even the memory left to start CUDA",
        "end what uses it: " + SEE_SMI,
        True,
    ),
    (r"busy or unavailable", "the GPU is busy or in exclusive mode", SEE_SMI, True),
)


def find_gpu(root: Path = ROOT) -> GpuFacts | NoGpu:
    """Look at the GPU that torch would use; free memory changes from call to call.

    Starts CUDA in this process where there is a driver: a second, and some hundred MiB of the GPU's memory.

    Args:
        root: the root of the file system.
    """
    if not any((root / sign).exists() for sign in DRIVER_SIGNS):
        if (root / AMD_SIGN).exists():
            return NoGpu("no NVIDIA driver was found; AMD's GPUs are not supported yet")
        return NoGpu(
            "no NVIDIA driver was found", "if there is a GPU, install its driver: nvidia-smi must list it"
        )
    import torch

    from llmcli_kernels.triton_toolchain import toolchain_problem, version

    def launcher_problem() -> NoGpu | None:
        problem = toolchain_problem()
        return None if problem is None else NoGpu(problem.reason, problem.fix, present=True)

    found = examine(torch, launcher_problem)
    if isinstance(found, NoGpu):
        return found
    return replace(found, driver=driver_version(root), triton=version())


def examine(torch: Any, launcher_problem: Callable[[], NoGpu | None]) -> GpuFacts | NoGpu:
    """What torch can do with the first GPU that it sees.

    Args:
        torch: the module.
        launcher_problem: tells why kernels can not be compiled and launched, or None; asked last.
    """
    if torch.version.cuda is None:
        built_for = "for AMD's GPUs" if getattr(torch.version, "hip", None) else "without CUDA"
        return NoGpu(
            f"torch {torch.__version__} is built {built_for}",
            "install a build with CUDA: pip install --force-reinstall torch (or see pytorch.org/get-started)",
            present=True,
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of what is told below
            torch.cuda.init()
            card = torch.cuda.get_device_properties(0)
            free, total = torch.cuda.mem_get_info(0)
    except Exception as error:  # RuntimeError, AssertionError or torch's own, all with a text for people
        return _start_failure(str(error), torch)
    capability = (card.major, card.minor)
    problem = (
        _too_old(card.name, capability) or _not_in_build(card.name, capability, torch) or launcher_problem()
    )
    if problem is not None:
        return problem
    return GpuFacts(
        name=quote(card.name),
        capability=capability,
        total_memory=total,
        free_memory=free,
        num_sms=card.multi_processor_count,
        count=torch.cuda.device_count(),
        cuda=torch.version.cuda,
    )


def driver_version(root: Path = ROOT) -> str:
    """NVIDIA's kernel driver, such as 570.86.15; empty where it does not tell."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return ""
    match = re.search(r"Module\b.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return match[1] if match else ""


def _start_failure(message: str, torch: Any) -> NoGpu:
    old = re.search(r"driver on your system is too old \(found version (\d+)\)", message)
    if old:
        supported = f"{int(old[1]) // 1000}.{int(old[1]) % 1000 // 10}"
        return NoGpu(
            f"NVIDIA's driver supports CUDA {supported}, torch {torch.__version__} needs {torch.version.cuda}",
            f"update the driver, or install a torch built for CUDA {supported}",
            present=True,
        )
    for pattern, reason, fix, present in START_FAILURES:
        if re.search(pattern, message):
            return NoGpu(reason, fix, present)
    first = message.strip().splitlines()[0] if message.strip() else "no reason given"
    return NoGpu(f"CUDA can not start: {quote(first.removeprefix('CUDA error: '))}", SEE_SMI, present=True)


def _too_old(name: str, capability: tuple[int, int]) -> NoGpu | None:
    if capability >= OLDEST_CAPABILITY:
        return None
    return NoGpu(
        f"llmcli needs compute capability {_dotted(OLDEST_CAPABILITY)} (Ampere) or newer,"
        f" this GPU, {quote(name)}, has {_dotted(capability)}",
        present=True,
    )


def _not_in_build(name: str, capability: tuple[int, int], torch: Any) -> NoGpu | None:
    """Whether this torch holds no code that the GPU can run: it runs what was built for its own major version and
    an equal or lower minor one, and compiles what is kept as PTX of any lower version."""
    built = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", text) for text in torch.cuda.get_arch_list()]
    versions = [(match[1], (int(match[2]), int(match[3]))) for match in built if match]
    for kind, version in versions:
        if version <= capability and (kind == "compute" or version[0] == capability[0]):
            return None
    if not versions:
        return None
    return NoGpu(
        f"torch {torch.__version__} has no code for compute capability {_dotted(capability)} of {quote(name)}",
        "update torch: pip install --upgrade torch",
        present=True,
    )


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
