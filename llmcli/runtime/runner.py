"""The runner: a `Step` goes in, the model runs, a `StepResult` comes out. Knows no text and no request."""

import torch

from llmcli.model.decoder import Decoder
from llmcli.model.forward_batch import KVCache
from llmcli.runtime.forward import build_batch
from llmcli.runtime.gpu_errors import gpu_error
from llmcli.runtime.sampler import sample
from llmcli.scheduler.step import Step, StepResult


class Runner:
    """Owns the decoder and its KV cache."""

    def __init__(self, decoder: Decoder, cache: KVCache, block_size: int) -> None:
        self.decoder = decoder
        self.cache = cache
        self.block_size = block_size
        self.device = decoder.cos_sin.device

    def run(self, step: Step) -> StepResult:
        """Compute one step.

        Raises:
            EngineError: the GPU failed or has no memory left.
        """
        try:
            return self._run(step)
        except Exception as error:
            failure = gpu_error(error) if self.device.type == "cuda" else None
            if failure is None:
                raise
            raise failure from error

    @torch.inference_mode()
    def _run(self, step: Step) -> StepResult:
        batch = build_batch(step, self.block_size, self.device)
        logits = self.decoder.forward(batch, self.cache)
        sampled = [part for part in step.slices if part.sample is not None]
        if not sampled:
            return StepResult(())
        specs = [part.sample for part in sampled if part.sample is not None]
        return StepResult(
            tuple(sample(logits, specs, [part.seq_id for part in sampled], self.decoder.kernels))
        )
