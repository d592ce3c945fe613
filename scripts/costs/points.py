"""The points of the measurement: a batch, a context, and how many tokens of each sequence are computed.

Owns how a point becomes steps over a KV cache that holds the context already; what the cache holds does not change
the time. Called by `scripts/bench_costs.py`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from llmcli.config import ResolvedConfig
from llmcli.sampling import SamplingParams
from llmcli.scheduler.step import SampleSpec, SequenceSlice, Step

CONTEXTS = (128, 256, 512, 1024, 2048, 4096, 8192)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
PROMPTS = (128, 512, 2048)
BATCH_CONTEXT = 128
GREEDY = SampleSpec(SamplingParams(temperature=0), seed=0, choice=0, position=0)


@dataclass(frozen=True, slots=True)
class Point:
    """What is timed at once.

    Attributes:
        batch: sequences.
        context: length of each once it is computed.
        tokens: of each sequence that are computed: 1, or all of a prompt.
    """

    batch: int
    context: int
    tokens: int = 1

    def num_blocks(self, block_size: int) -> int:
        return self.batch * -(-self.context // block_size)

    def steps(self, config: ResolvedConfig, vocab: int) -> tuple[Step, ...]:
        """One step, or several where a prompt is longer than a step's token budget.

        Blocks are in no order, as in a cache that has been in use for a while.
        """
        width = self.num_blocks(config.block_size) // self.batch
        blocks = random.Random(0).sample(range(width * self.batch), width * self.batch)
        steps = []
        for start in range(self.context - self.tokens, self.context, config.max_num_batched_tokens):
            end = min(start + config.max_num_batched_tokens, self.context)
            used = -(-end // config.block_size)
            sample = GREEDY if end == self.context else None
            slices = []
            for index in range(self.batch):
                ids = tuple(1 + (index + 31 * position) % (vocab - 1) for position in range(start, end))
                own = tuple(blocks[index * width : index * width + used])
                slices.append(SequenceSlice(index, start, ids, own, sample))
            steps.append(Step(tuple(slices)))
        return tuple(steps)


@dataclass(frozen=True, slots=True)
class Plan:
    """Three series; the first two may share a point."""

    contexts: tuple[Point, ...]
    batches: tuple[Point, ...]
    prompts: tuple[Point, ...]

    @classmethod
    def within(cls, config: ResolvedConfig) -> Self:
        """The points that the model's context and the KV cache have room for."""
        most = config.max_model_len
        context = min(BATCH_CONTEXT, most)
        batches = (Point(batch, context) for batch in BATCHES)
        return cls(
            contexts=tuple(Point(1, length) for length in fitting(CONTEXTS, most)),
            batches=tuple(p for p in batches if p.num_blocks(config.block_size) <= config.num_blocks),
            prompts=tuple(Point(1, length, length) for length in fitting(PROMPTS, most)),
        )

    @property
    def points(self) -> tuple[Point, ...]:
        return tuple(dict.fromkeys((*self.contexts, *self.batches, *self.prompts)))


def fitting(sizes: Sequence[int], most: int) -> list[int]:
    """Those that are not larger than `most`, or that itself."""
    return [size for size in sizes if size <= most] or [most]
