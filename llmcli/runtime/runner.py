"""The runner: a `Step` goes in, the model runs, a `StepResult` comes out. Knows no text and no request."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from llmcli.model.decoder import Decoder
from llmcli.model.forward_batch import KVCache
from llmcli.runtime.decode_graphs import DecodeGraphs
from llmcli.runtime.forward import Drawing, LastDrawn, build_batch, pending_tokens, specs_of
from llmcli.runtime.gpu_errors import gpu_error
from llmcli.runtime.sampler import draw, read
from llmcli.runtime.transfer import all_done, to_host
from llmcli.scheduler.step import Step, StepResult

Wait = Callable[[], StepResult]
Draw = Callable[[Step], Wait]


class Runner:
    """Owns the decoder and its KV cache.

    Args:
        graphs: runs steps in which every sequence decodes; None has all steps run operation by operation.
    """

    def __init__(
        self, decoder: Decoder, cache: KVCache, block_size: int, graphs: DecodeGraphs | None = None
    ) -> None:
        self.decoder = decoder
        self.cache = cache
        self.block_size = block_size
        self.device = decoder.cos_sin.device
        self._graphs = graphs
        self._last: LastDrawn | None = None

    def run(self, step: Step) -> StepResult:
        """Compute one step.

        Raises:
            EngineError: the GPU failed or has no memory left.
        """
        return self.start(step)()

    def warm_up(self, step: Step) -> None:
        """Compute a step in every way that there is for it. Raises what `run` does."""
        with self._told(), torch.inference_mode():
            self._operation_by_operation(step)(step)
        self.run(step)

    def start(self, step: Step) -> Wait:
        """Start to compute a step, behind those that were started before.

        Its late slices take the tokens that the step started last draws. A GPU goes on by itself; on a CPU the step
        is done when this returns.

        Returns:
            A function that waits for the result. It need not be called.

        Raises:
            EngineError: the GPU failed or has no memory left; the function that is returned raises it too.
        """
        return self.begin(step)(step)

    def begin(self, step: Step) -> Draw:
        """As `start`, but for what is drawn.

        Returns:
            A function that has the tokens drawn, and returns what `start` does. It takes the step with what was not
            known before: masks. Nothing else may be begun before it is called, or it is not called any more.
        """
        with self._told(), torch.inference_mode():
            drawing = self._compute(step)

        def draw_tokens(step: Step) -> Wait:
            with self._told(), torch.inference_mode():
                return self._draw(step, drawing)

        return draw_tokens

    def _draw(self, step: Step, drawing: Drawing) -> Wait:
        specs = specs_of(step)
        if not specs:
            self._last = None
            return self._nothing_drawn(all_done(self.device))
        drawn = drawing(step)
        seq_ids = [part.seq_id for part in step.slices if part.sample is not None]
        self._last = LastDrawn(drawn.tokens[0], dict(zip(seq_ids, range(len(seq_ids)), strict=True)))
        arrive = to_host((drawn.tokens, *drawn.logprobs))

        def wait() -> StepResult:
            with self._told():
                tokens, *logprobs = arrive()
            return StepResult(tuple(read(tokens[:, : len(specs)], logprobs, specs, seq_ids)))

        return wait

    def _nothing_drawn(self, done: Callable[[], None]) -> Wait:
        """Waits all the same: or else a long prompt would be far ahead of whoever wants to stop it."""

        def wait() -> StepResult:
            with self._told():
                done()
            return StepResult(())

        return wait

    def _compute(self, step: Step) -> Drawing:
        if self._graphs is not None and self._graphs.take(step):
            return self._graphs.run(step, self._last)
        return self._operation_by_operation(step)

    def _operation_by_operation(self, step: Step) -> Drawing:
        batch = build_batch(step, self.block_size, self.device, self._last)
        logits = self.decoder.forward(batch, self.cache)
        pending = pending_tokens(step, self._last)
        return lambda known: draw(logits, specs_of(known), self.decoder.kernels, pending)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What a GPU raises, in words for people."""
        try:
            yield
        except Exception as error:
            failure = gpu_error(error) if self.device.type == "cuda" else None
            if failure is None:
                raise
            raise failure from error
