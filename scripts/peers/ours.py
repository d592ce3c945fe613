"""llmcli on the AWQ file: the engine in this process, and the command from its start to the first token."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from scripts.peers.checkpoints import make_checkpoint, missing_folder
from scripts.peers.measure import Measured, Timing, follow, measure
from scripts.peers.place import Place
from scripts.peers.workload import MAX_MODEL_LEN, BenchTest, Kind, Model, Request

PROMPT = "Why is the sky blue?"


class Ours:
    """
    Args:
        kernels: the kernel set, "auto" for what users get; the others are what users get on other processors.
    """

    def __init__(self, kernels: str = "auto") -> None:
        self._kernels = kernels
        usual = kernels == "auto"
        self.title = "llmcli AWQ" if usual else f"llmcli AWQ, {kernels} only"
        self.kinds: tuple[Kind, ...] = ("prompt", "decode", *(("mixed", "first-token") if usual else ()))

    def prepare(self, place: Place, jobs: int) -> None:
        pass

    def prepare_model(self, place: Place, model: Model) -> None:
        make_checkpoint(place, model, place.awq(model), awq=True)

    def missing(self, place: Place, model: Model) -> str:
        return missing_folder(place, place.awq(model))

    def python(self, place: Place) -> Path:
        return Path(sys.executable)

    def variables(self, place: Place, model: Model, threads: int) -> dict[str, str]:
        return {"TOKENIZERS_PARALLELISM": "false"}

    def load(self, place: Place, model: Model, threads: int) -> "_Loaded":
        return _Loaded(place.awq(model), model, threads, self._kernels)


class _Loaded:
    def __init__(self, folder: Path, model: Model, threads: int, kernels: str) -> None:
        from llmcli import LLM
        from llmcli.jobs.bench.quick import bytes_per_step
        from llmcli.jobs.environment import environment

        self._threads = threads
        self._engine = LLM(
            folder,
            device="cpu",
            kernels=kernels,
            num_threads=threads,
            max_model_len=MAX_MODEL_LEN,
            kv_cache_memory=model.kv_gib << 30,
        ).engine
        self._command = [sys.executable, "-m", "llmcli", "chat", str(folder), "--device", "cpu"]
        self._command += ["--threads", str(threads), "--max-tokens", "8", "--temperature", "0"]
        facts = environment(self._engine) | {"model": model.shape}
        self.versions: dict[str, Any] = facts | {"bytes_per_step": bytes_per_step(self._engine)}

    def measure(self, test: BenchTest) -> Measured:
        if test.kind == "first-token":
            first_token_seconds(self._command)  # whatever is cached is cached after this
            return Measured(first_token_seconds(self._command), {})
        if test.kind == "decode" and test.batch == 1:
            return self._beside_the_memory(test)
        return measure(self, test)

    def _beside_the_memory(self, test: BenchTest) -> Measured:
        """With what memory gave right before and after: on a shared machine that changes from minute to minute."""
        from llmcli.jobs.bench.quick import read_bandwidth

        before = read_bandwidth(self._threads)
        measured = measure(self, test)
        bandwidth = (before + read_bandwidth(self._threads)) / 2
        return Measured(measured.value, measured.more | {"read_bandwidth": bandwidth})

    def generate(self, requests: list[Request]) -> Timing:
        from llmcli import SamplingParams

        self._engine.reset_prefix_cache()
        started = time.perf_counter()
        wanted = {}
        for ids, count in requests:
            params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
            wanted[self._engine.add(ids, params)] = count
        return follow(wanted, self._step, started)

    def _step(self) -> list[tuple[str, int]]:
        events = self._engine.step()
        for event in events:
            if event.error is not None:
                raise RuntimeError(event.error)
        return [(event.request_id, len(event.token_ids)) for event in events]


def first_token_seconds(command: list[str]) -> float:
    """Seconds from starting a command, with a prompt on its standard input, to the first byte of its answer."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(PROMPT.encode())
        process.stdin.close()
        first = process.stdout.read(1)
        seconds = time.perf_counter() - started
        process.stdout.read()
    if not first or process.returncode:
        raise RuntimeError(f"the command answered nothing, exit status {process.returncode}")
    return seconds
