"""Every kind of step once, the largest among them: so that kernels are compiled, and memory is taken, before the first
request and not during it.

Triton compiles a kernel when it first meets a combination of types, tile sizes and properties of its arguments.
Knows which shapes a plan allows; not which kernels they lead to. Used by `engine/build.py` for a GPU.
"""

from collections.abc import Iterator

from llmcli.config import ResolvedConfig
from llmcli.runtime.decode_graphs import buckets_up_to
from llmcli.sampling import MAX_LOGPROBS, SamplingParams
from llmcli.scheduler.step import SampleSpec, SequenceSlice, Step

GREEDY = SampleSpec(SamplingParams(temperature=0), seed=0, choice=0, position=0)
DRAWN = SampleSpec(
    SamplingParams(temperature=1.0, top_k=20, top_p=0.9, min_p=0.05), seed=0, choice=0, position=0
)
# Takes most memory.
MOST = SampleSpec(DRAWN.params.replace(logprobs=MAX_LOGPROBS), seed=0, choice=0, position=0)
FEW_QUERIES = 16  # the end of a prompt whose beginning is cached
SHORTEST_CONTEXT = 256  # tokens; contexts grow fourfold from here
TOKEN = 0
NUM_BLOCKS = 1  # that the cache must have: all sequences are written over each other


def warm_up_steps(config: ResolvedConfig) -> list[Step]:
    """Batches of decodes, long contexts, prompts of all lengths, and the most that a step can have."""
    most_sequences = min(config.max_num_seqs, config.max_num_batched_tokens)
    most_tokens = min(config.max_num_batched_tokens, config.max_model_len)
    return [
        *decode_steps(config),
        *(_one(config, length - 1, 1) for length in _growing(SHORTEST_CONTEXT, config.max_model_len, 4)),
        *(_one(config, 0, count) for count in _growing(2, most_tokens, 2)),
        *(
            _one(config, config.max_model_len - count, count)
            for count in _growing(2, min(FEW_QUERIES, most_tokens), 2)
        ),
        *(
            _joined(config, length)
            for length in (1, config.max_model_len)
            if most_sequences > 1 and most_tokens > 2
        ),
        _one(config, config.max_model_len - most_tokens, most_tokens),
        _prompts(config, most_sequences),
    ]


def decode_steps(config: ResolvedConfig) -> list[Step]:
    """Of those the batches of decodes, the largest first: one for each captured graph, and for more rows than those."""
    most = min(config.max_num_seqs, config.max_num_batched_tokens)
    counts = {most, *(min(bucket, most) for bucket in buckets_up_to(most))}
    return [_decodes(count) for count in sorted(counts, reverse=True)]


def _growing(first: int, last: int, factor: int) -> Iterator[int]:
    """first, first · factor, ... and last."""
    while first < last:
        yield first
        first *= factor
    yield last


def _decodes(count: int) -> Step:
    """The first token of each of `count` sequences."""
    slices = (SequenceSlice(i, 0, (TOKEN,), (0,), GREEDY if i % 2 else DRAWN) for i in range(count))
    return Step(tuple(slices))


def _prompts(config: ResolvedConfig, count: int) -> Step:
    """As many tokens of `count` sequences as a step may have; each draws, and tells of it all that can be asked for."""
    length = min(config.max_num_batched_tokens // count, config.max_model_len)
    tokens, blocks = (TOKEN,) * length, _blocks(config, length)
    return Step(tuple(SequenceSlice(i, 0, tokens, blocks, MOST) for i in range(count)))


def _one(config: ResolvedConfig, start: int, count: int) -> Step:
    """`count` tokens of one sequence from position `start` on; what lies before them does not matter."""
    blocks = _blocks(config, start + count)
    return Step((SequenceSlice(0, start, (TOKEN,) * count, blocks, GREEDY),))


def _joined(config: ResolvedConfig, context: int) -> Step:
    """The next token of one sequence beside the prompt of another: attention then does not rotate by itself."""
    decoding = SequenceSlice(0, context - 1, (TOKEN,), _blocks(config, context), GREEDY)
    return Step((decoding, SequenceSlice(1, 0, (TOKEN, TOKEN), _blocks(config, 2), GREEDY)))


def _blocks(config: ResolvedConfig, length: int) -> tuple[int, ...]:
    """A block table for so many tokens."""
    return (0,) * -(-length // config.block_size)
