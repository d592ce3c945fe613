"""What a measurement was made on and with: part of every benchmark result."""

import datetime
import platform
from pathlib import Path
from typing import Any

from llmcli import __version__
from llmcli.engine.engine import Engine
from llmcli.gpu_facts import GpuFacts
from llmcli.hardware import read_hardware_facts


def environment(engine: Engine) -> dict[str, Any]:
    """A JSON-ready record of machine, versions, model and configuration."""
    import torch

    hardware = read_hardware_facts()
    config, spec = engine.config, engine.spec
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "llmcli": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": hardware.num_cores,
        "threads": config.num_threads,
        "memory_bytes": hardware.total_memory,
        "gpu": _gpu(config.gpu) if config.gpu else None,
        "model": engine.model.name,
        "revision": engine.model.revision,
        "architecture": spec.architecture,
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


def cpu_name() -> str:
    """The processor's name, and the vector extensions that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    known = set(fields.get("flags", "").split())
    names = {
        "avx2": "AVX2",
        "avx512f": "AVX-512",
        "avx512_vnni": "VNNI",
        "avx512_bf16": "BF16",
        "amx_tile": "AMX",
    }
    found = ", ".join(shown for flag, shown in names.items() if flag in known)
    return f"{fields.get('model name', platform.machine())}" + (f" ({found})" if found else "")
