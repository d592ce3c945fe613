"""What machine this is: the GPU, its driver and clocks, the versions. The first stage; needs no GPU itself."""

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from scripts.gpu_bench.session import Row, Session

PACKAGES = ("triton", "transformers", "tokenizers", "safetensors", "gemlite", "autoawq", "pytest")
SMI_FIELDS = (
    "driver_version",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "power.limit",
    "temperature.gpu",
    "ecc.mode.current",
)


def run(session: Session) -> None:
    session.case("environment", lambda: {"kind": "note", **environment(session.dry)})


def environment(dry: bool) -> Row:
    """Facts as plain values; "gpu" is None without one."""
    return {
        "gpu": None if dry or not torch.cuda.is_available() else gpu_facts(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def gpu_facts() -> dict[str, Any]:
    """Of the current device, which is the first visible one."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    facts: dict[str, Any] = {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "num_sms": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "free_bytes": torch.cuda.mem_get_info()[0],
        "l2_bytes": getattr(properties, "L2_cache_size", None),
    }
    clock, width = (getattr(properties, name, None) for name in ("memory_clock_rate", "memory_bus_width"))
    if clock and width:  # kHz and bits; memory transfers on both edges
        facts["nominal_gb_s"] = round(2 * clock * 1e3 * width / 8 / 1e9, 1)
    return facts | nvidia_smi()


def nvidia_smi() -> dict[str, str]:
    """Driver and clocks as the driver's tool tells them; nothing where it does not work."""
    if shutil.which("nvidia-smi") is None:
        return {}
    query = f"--query-gpu={','.join(SMI_FIELDS)}"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = done.stdout.strip().splitlines()[:1]
    if done.returncode or not values:
        return {}
    return dict(zip(SMI_FIELDS, (value.strip() for value in values[0].split(",")), strict=False))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
