"""Steps with a stopwatch: the whole step, the native program and the output head, and the kernels of the program.

Owns where the stopwatches sit: around the decoder where it runs as one native program, and around an output head that
is not in it. Called by `scripts/bench_costs.py`.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmcli.model.decoder import Decoder
from llmcli.model.linear import Int8Linear
from llmcli.runtime.runner import Runner
from llmcli.scheduler.step import Step
from llmcli_kernels.decoder import DecoderParts, FusedDecoder
from llmcli_kernels.paged_kv import PagedKV

LM_HEAD, REST = "lm_head", "rest"
PARTS = {
    "attend": "attention",
    "merge": "attention",
    "product": "product",
    "gather + rms_norm + quantise": "norm",
    "add_rms_norm": "norm",
    "add_rms_norm + quantise": "norm",
    "rope_kv_write": "rope",
    "silu_mul + quantise": "silu",
    "gather": LM_HEAD,
    "gather + quantise": LM_HEAD,
}  # what native kernels count as; others as what they are called


class Stopwatch:
    """A function, and the seconds that its calls have taken."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = self.function(*args, **kwargs)
        self.seconds += time.perf_counter() - started
        return result

    def take(self) -> float:
        """The seconds since it was asked last."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


@dataclass(frozen=True, slots=True)
class Timing:
    """Steps one after the other, in seconds.

    Attributes:
        whole: from the Step to the StepResult.
        lm_head: of them, in an output head outside of the native program.
        program: of them, in the native program; 0 where there is none.
        kernels: of each native kernel, its stages run one by one right after; what their calls cost is in them.
    """

    whole: float
    lm_head: float
    program: float
    kernels: Mapping[str, float] = field(default_factory=dict)

    def shares(self) -> dict[str, float]:
        """Each part's share of the whole; the program's time is divided as its kernels' times are. The rest is
        preparation, sampling and Python, and the layers where there is no native program."""
        profiled = sum(self.kernels.values())
        shares: defaultdict[str, float] = defaultdict(float)
        for kernel, seconds in self.kernels.items():
            shares[PARTS.get(kernel, kernel)] += self.program * seconds / profiled / self.whole
        shares[LM_HEAD] += self.lm_head / self.whole
        return {**shares, REST: 1 - sum(shares.values())}


class TimedRunner:
    """A runner's model and cache, with stopwatches inside."""

    def __init__(self, runner: Runner) -> None:
        decoder = runner.decoder
        self._kernels = decoder.kernels
        self._lm_head = Stopwatch(decoder.weights.lm_head)
        self._program: Stopwatch | None = None
        in_program = isinstance(decoder.weights.lm_head, Int8Linear)
        timed = Decoder(
            decoder.spec,
            decoder.weights if in_program else replace(decoder.weights, lm_head=self._lm_head),
            replace(self._kernels, fuse_decoder=self._fuse),
            decoder.cos_sin,
        )
        self._runner = Runner(timed, runner.cache, runner.block_size)

    @property
    def has_native_program(self) -> bool:
        """Whether the layers run as one program; known after the first step."""
        return self._program is not None

    def run(self, steps: Sequence[Step]) -> Timing:
        """Run a point's steps, each of them profiled when it is done; its last one has run once before, untimed."""
        self._runner.run(steps[-1])
        self._take()
        whole = lm_head = program = 0.0
        kernels: defaultdict[str, float] = defaultdict(float)
        for step in steps:
            started = time.perf_counter()
            self._runner.run(step)
            whole += time.perf_counter() - started
            in_head, in_program = self._take()
            lm_head, program = lm_head + in_head, program + in_program
            if self._program is not None:
                for kernel, seconds in self._program.function.profile().items():
                    kernels[kernel] += seconds
        return Timing(whole, lm_head, program, dict(kernels))

    def _take(self) -> tuple[float, float]:
        return self._lm_head.take(), 0.0 if self._program is None else self._program.take()

    def _fuse(self, parts: DecoderParts, kvs: tuple[PagedKV, ...]) -> FusedDecoder | None:
        fused = self._kernels.fuse_decoder(parts, kvs)
        self._program = None if fused is None else Stopwatch(fused)
        return self._program
