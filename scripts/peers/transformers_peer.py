"""transformers on the dense model in bfloat16, in the environment of llmcli (its `test` extra brings it)."""

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

from scripts.peers.checkpoints import make_checkpoint, missing_folder
from scripts.peers.measure import Measured, Timing, measure
from scripts.peers.place import Place
from scripts.peers.workload import BenchTest, Kind, Model, Request


class Transformers:
    title = "transformers bf16"
    kinds: tuple[Kind, ...] = ("prompt", "decode")

    def prepare(self, place: Place, jobs: int) -> None:
        pass

    def prepare_model(self, place: Place, model: Model) -> None:
        make_checkpoint(place, model, place.dense(model))

    def missing(self, place: Place, model: Model) -> str:
        if importlib.util.find_spec("transformers") is None:
            return "transformers is not installed here: pip install transformers"
        return missing_folder(place, place.dense(model))

    def python(self, place: Place) -> Path:
        return Path(sys.executable)

    def variables(self, place: Place, model: Model, threads: int) -> dict[str, str]:
        return {}

    def load(self, place: Place, model: Model, threads: int) -> "_Loaded":
        return _Loaded(place.dense(model), threads)


class _Loaded:
    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        self._model = model
        self.versions = {"transformers": transformers.__version__, "torch": torch.__version__}

    def measure(self, test: BenchTest) -> Measured:
        return measure(self, test)

    def generate(self, requests: list[Request]) -> Timing:
        """All prompts have one length and all outputs another, as the tests that this peer runs have."""
        import torch

        prompts, num_tokens = torch.tensor([ids for ids, _ in requests]), requests[0][1]
        ends: list[float] = []

        def note_step(ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
            ends.append(time.perf_counter())
            return torch.zeros(len(ids), dtype=torch.bool)

        started = time.perf_counter()
        with torch.inference_mode():
            answer = self._model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                do_sample=False,
                max_new_tokens=num_tokens,
                stopping_criteria=[note_step],
            )
        assert answer.shape[1] == prompts.shape[1] + num_tokens
        return Timing(ends[0] - started, (num_tokens - 1) * len(requests), ends[-1] - started)
