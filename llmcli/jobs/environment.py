"""What a measurement was made on and with: part of every benchmark result.

Knows no benchmark. `machine` is what is known without a model (a client of a server has no more), `environment`
adds the engine's model and configuration.
"""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcli import __version__
from llmcli.gpu_facts import GpuFacts
from llmcli.hardware import cpu_name, read_hardware_facts
from llmcli.model.checkpoint import read_checkpoint
from llmcli.model.parameters import count_parameters

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine

GIT_TIMEOUT_S = 5.0


def machine() -> dict[str, Any]:
    """A JSON-ready record of this machine and of the versions in use; loads no torch."""
    hardware = read_hardware_facts()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "llmcli": __version__,
        "commit": source_commit(),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_mhz": _cpu_mhz(),
        "cores": hardware.num_cores,
        "load": _load(),
        "memory_bytes": hardware.total_memory,
    }


def environment(engine: "Engine") -> dict[str, Any]:
    """A JSON-ready record of machine, versions, model and configuration."""
    config, spec = engine.config, engine.spec
    return {
        **machine(),
        "threads": config.num_threads,
        "gpu": _gpu(config.gpu) if config.gpu else None,
        "model": engine.model.name,
        "revision": engine.model.revision,
        "architecture": spec.architecture,
        "parameters": count_parameters(read_checkpoint(engine.model.path), spec),
        "quantization": "awq" if spec.quantization else None,
        "dtype": config.dtype,
        "kv_cache_dtype": config.kv_cache_dtype,
        "lm_head": config.lm_head,
        "device": config.device,
        "kernels": config.kernels,
        "weight_bytes": config.weight_bytes,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "block_size": config.block_size,
        "num_blocks": config.num_blocks,
        "prefix_caching": config.enable_prefix_caching,
        "async_scheduling": config.async_scheduling,
        "cuda_graphs": config.cuda_graphs,
    }


def _gpu(gpu: GpuFacts) -> dict[str, Any]:
    return {
        "name": gpu.name,
        "capability": f"{gpu.capability[0]}.{gpu.capability[1]}",
        "memory_bytes": gpu.total_memory,
        "driver": gpu.driver,
        "cuda": gpu.cuda,
        "triton": gpu.triton,
    }


def source_commit() -> str | None:
    """The commit of a checkout that this code runs from, with a + for changed files; None when it is installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    ask = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(ask, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True)
        return done.stdout.strip() or None
    return None


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _load() -> float | None:
    """Processes that wanted to run in the last minute, on average; above 0 before a benchmark means noise."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _cpu_mhz() -> float | None:
    """The clock now, in MHz, averaged over the cores."""
    import psutil

    with contextlib.suppress(OSError, NotImplementedError, RuntimeError, AttributeError):
        frequency = psutil.cpu_freq()
        return round(frequency.current) if frequency else None
    return None
