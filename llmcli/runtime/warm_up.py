"""Runs every kind of step once, so that kernels are compiled before the first request and not during it.

Triton compiles a kernel when it first meets a combination of types, tile sizes and properties of its arguments.
Knows which shapes a plan allows; not which kernels they lead to. Called by `engine/build.py` for a GPU.
"""

from collections.abc import Iterator

from llmcli.config import ResolvedConfig
from llmcli.sampling import SamplingParams
from llmcli.scheduler.step import SampleSpec, SequenceSlice, Step

GREEDY = SampleSpec(SamplingParams(temperature=0), seed=0, choice=0, position=0)
DRAWN = SampleSpec(
    SamplingParams(temperature=1.0, top_k=20, top_p=0.9, min_p=0.05), seed=0, choice=0, position=0
)
FEW_QUERIES = 16  # the end of a prompt whose beginning is cached
SHORTEST_CONTEXT = 256  # tokens; contexts grow fourfold from here
TOKEN = 0


def warm_up_steps(config: ResolvedConfig) -> list[Step]:
    """Steps that write no block but those of an unused KV cache: batches of decodes, long contexts, prompts."""
    most_sequences = min(config.max_num_seqs, config.max_num_batched_tokens, config.num_blocks)
    most_tokens = min(config.max_num_batched_tokens, config.max_model_len)
    return [
        *(_decodes(config, count) for count in _growing(1, most_sequences, 2)),
        *(_one(config, length - 1, 1) for length in _growing(SHORTEST_CONTEXT, config.max_model_len, 4)),
        *(_one(config, 0, count) for count in _growing(2, most_tokens, 2)),
        *(
            _one(config, config.max_model_len - count, count)
            for count in _growing(2, min(FEW_QUERIES, most_tokens), 2)
        ),
    ]


def _growing(first: int, last: int, factor: int) -> Iterator[int]:
    """first, first · factor, ... and last."""
    while first < last:
        yield first
        first *= factor
    yield last


def _decodes(config: ResolvedConfig, count: int) -> Step:
    """The first token of each of `count` sequences."""
    slices = (SequenceSlice(i, 0, (TOKEN,), (i,), GREEDY if i % 2 else DRAWN) for i in range(count))
    return Step(tuple(slices))


def _one(config: ResolvedConfig, start: int, count: int) -> Step:
    """`count` tokens of one sequence from position `start` on; what lies before them does not matter."""
    blocks = tuple(range(-(-(start + count) // config.block_size)))
    return Step((SequenceSlice(0, start, (TOKEN,) * count, blocks, GREEDY),))
