"""How many bytes a step must read from memory: what it would take if nothing but that took time.

Called by `scripts/bench_costs.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from llmcli.config import ResolvedConfig
from llmcli.model.decoder import Decoder
from llmcli.scheduler.step import Step


@dataclass(frozen=True, slots=True)
class Roofline:
    """Bytes of one model. Norms, biases, activations and the embedding's few rows are left out.

    Attributes:
        layers: of all linear layers' weights as they are packed, their scales included.
        lm_head: of the output head's.
        kv_per_token: keys and values of one position in one layer, their scales included.
        windows: for each layer how many positions a token sees, None is all.
    """

    layers: int
    lm_head: int
    kv_per_token: int
    windows: tuple[int | None, ...]

    @classmethod
    def of(cls, decoder: Decoder, config: ResolvedConfig) -> Self:
        layers = decoder.weights.layers
        return cls(
            layers=sum(
                stored_bytes(part) for each in layers for part in (each.qkv, each.o, each.gate_up, each.down)
            ),
            lm_head=stored_bytes(decoder.weights.lm_head),
            kv_per_token=config.kv_bytes_per_token // len(layers),
            windows=decoder.spec.sliding_windows,
        )

    def read_bytes(self, steps: Sequence[Step]) -> int:
        """Of steps one after the other: each reads all weights once, and what its sequences have in the cache."""
        return sum(self._of_step(step) for step in steps)

    def _of_step(self, step: Step) -> int:
        head = self.lm_head if any(part.sample is not None for part in step.slices) else 0
        return self.layers + head + sum(self._of_kv(part.start, part.end) for part in step.slices)

    def _of_kv(self, start: int, end: int) -> int:
        """Of one sequence, seen from its positions start .. end - 1."""
        seen = (end if window is None else end - max(0, start - window + 1) for window in self.windows)
        return self.kv_per_token * sum(seen)


def stored_bytes(linear: Any) -> int:
    """Of a linear layer's weights in memory, without its bias."""
    if parts := getattr(linear, "parts", None):
        return sum(map(stored_bytes, parts))
    weight: Any = linear.packed if hasattr(linear, "packed") else linear.weight
    nbytes: int = weight.nbytes
    return nbytes
