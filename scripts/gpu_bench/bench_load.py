"""How long a 4-bit model takes from its files to the GPU, repacked: from the disk, and from the system's memory.

Owns the checkpoint, whose layers all have the same weights, so that it is written in seconds, and what is told of
loading it. The file is read once more beside, without doing anything with it: no loading can be faster.
"""

import gc
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from llmcli.model.spec import ModelSpec, read_model_spec
from llmcli.model.weights import load_weights
from llmcli_kernels import KernelSet, select
from scripts.gpu_bench.random_engine import config_of
from scripts.gpu_bench.session import Row, Session
from scripts.make_random_model import GROUP, tensors, write_shards

REPEATS = 3
BLOCK_BYTES = 16 << 20
GB_PER_S, OF_READING = "GB/s", "of the time to read the file"


def run(session: Session, name: str) -> None:
    kernels = select("cuda", "triton")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_checkpoint(path, config_of(name, session.dry))
        spec = read_model_spec(path)
        for cold in (True, False):
            work = partial(_load, session, kernels, name, path, spec, cold=cold)
            session.case(f"{name} load from the {'disk' if cold else 'page cache'}", work)


def write_checkpoint(folder: Path, config: dict[str, object]) -> None:
    """A random AWQ checkpoint of a shape."""
    block = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": block}))
    write_shards(folder, _alike(config))


def _alike(config: dict[str, object]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model whose layers are copies of the first."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    assert isinstance(heads, int)
    assert isinstance(hidden, int)
    one = config | {"num_hidden_layers": 1, "head_dim": hidden // heads}
    first = "model.layers.0."
    for name, tensor in tensors(one, awq=True, seed=0):
        if not name.startswith(first):
            yield name, tensor
            continue
        for layer in range(int(str(config["num_hidden_layers"]))):
            yield f"model.layers.{layer}.{name.removeprefix(first)}", tensor.clone()


def _load(
    session: Session, kernels: KernelSet, name: str, folder: Path, spec: ModelSpec, *, cold: bool
) -> Row:
    def load() -> None:
        weights = load_weights(folder, spec, kernels, torch.float16, device=session.device)
        if not session.dry:
            torch.cuda.synchronize()
        del weights

    files = sorted(folder.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    load()  # compiles the kernels that repack
    loading, reading = [], []
    for _ in range(1 if session.dry else REPEATS):
        for times, work in ((reading, partial(_read, files)), (loading, load)):
            gc.collect()
            if cold:
                _forget(files)
            times.append(_seconds(work))
    return {
        "kind": "benchmark",
        "operation": f"{name} load",
        "sizes": {"bytes": size, "from_disk": int(cold)},
        "time": {
            "median_us": 1e6 * median(loading),
            "min_us": 1e6 * min(loading),
            "max_us": 1e6 * max(loading),
            "repeats": len(loading),
            "how": "dry run" if session.dry else "wall clock",
        },
        "figures": {
            GB_PER_S: size / median(loading) / 1e9,
            OF_READING: median(loading) / median(reading),
        },
    }


def _read(files: list[Path]) -> None:
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.read(BLOCK_BYTES):
                pass


def _forget(files: list[Path]) -> None:
    """Have the system drop its copies, so that the files come from the disk."""
    for file in files:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
