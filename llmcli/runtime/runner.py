"""The runner: a `Step` goes in, the model runs, a `StepResult` comes out. Knows no text and no request."""

import torch

from llmcli.model.decoder import Decoder
from llmcli.model.forward_batch import KVCache
from llmcli.runtime.forward import build_batch
from llmcli.runtime.sampler import sample
from llmcli.scheduler.step import Step, StepResult


class Runner:
    """Owns the decoder and its KV cache."""

    def __init__(self, decoder: Decoder, cache: KVCache, block_size: int) -> None:
        self.decoder = decoder
        self.cache = cache
        self.block_size = block_size

    @torch.inference_mode()
    def run(self, step: Step) -> StepResult:
        """Compute one step."""
        batch = build_batch(step, self.block_size)
        logits = self.decoder.forward(batch, self.cache)
        sampled = [part for part in step.slices if part.sample is not None]
        if not sampled:
            return StepResult(())
        specs = [part.sample for part in sampled if part.sample is not None]
        return StepResult(
            tuple(sample(logits, specs, [part.seq_id for part in sampled], self.decoder.kernels))
        )
