"""What a request gives does not depend on the batch, the chunks, the blocks, the prefix cache or preemption."""

import random
from pathlib import Path
from typing import Any

import pytest

from llmcli import LLM, RequestOutput, SamplingParams
from tests.tiny_models import tiny_chat_model

NUM_REQUESTS = 16
NUM_TOKENS = 12
GREEDY = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True)
SEEDED = SamplingParams(
    temperature=0.9, top_p=0.95, seed=11, max_tokens=NUM_TOKENS, ignore_eos=True, repetition_penalty=1.1
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Lengths around block edges, half of them with a common beginning."""
    source = random.Random(3)
    shared = [source.randrange(3, 300) for _ in range(40)]
    lengths = [1, 3, 4, 5, 15, 16, 17, 31, 32, 33, 40, 41, 44, 48, 49, 60]
    return [
        shared[:length] + [source.randrange(3, 300) for _ in range(length - 40)]
        if index % 2
        else [source.randrange(3, 300) for _ in range(length)]
        for index, length in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def alone(folder: Path, prompts: list[list[int]]) -> dict[str, list[list[int]]]:
    """The truth: each request in an engine of its own step sequence, one after the other, nothing cached."""
    llm = LLM(folder, dtype="float32", num_threads=1, enable_prefix_caching=False)
    return {
        name: [ids(llm.generate([prompt], params, use_tqdm=False))[0] for prompt in prompts]
        for name, params in (("greedy", GREEDY), ("seeded", SEEDED))
    }


def ids(outputs: list[RequestOutput]) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in outputs]


@pytest.mark.parametrize("prefix_caching", [True, False], ids=["prefix cache", "no prefix cache"])
@pytest.mark.parametrize("block_size", [4, 16])
@pytest.mark.parametrize("budget", [1, 7, 16, 512])
def test_a_batch_of_sixteen_gives_what_each_request_gives_alone(
    folder: Path,
    prompts: list[list[int]],
    alone: dict[str, Any],
    budget: int,
    block_size: int,
    prefix_caching: bool,
) -> None:
    llm = LLM(
        folder,
        dtype="float32",
        num_threads=1,
        max_num_batched_tokens=budget,
        block_size=block_size,
        enable_prefix_caching=prefix_caching,
    )
    assert ids(llm.generate(prompts, GREEDY, use_tqdm=False)) == alone["greedy"]
    again = llm.generate(prompts, SEEDED, use_tqdm=False)
    assert ids(again) == alone["seeded"]
    assert any(output.num_cached_tokens for output in again) == prefix_caching


@pytest.mark.parametrize("prefix_caching", [True, False], ids=["prefix cache", "no prefix cache"])
@pytest.mark.parametrize(("block_size", "budget"), [(4, 7), (4, 512), (16, 16), (16, 512)])
def test_preempted_requests_give_the_same(
    folder: Path,
    prompts: list[list[int]],
    alone: dict[str, Any],
    block_size: int,
    budget: int,
    prefix_caching: bool,
) -> None:
    longest = max(map(len, prompts)) + NUM_TOKENS
    per_token = LLM(folder, dtype="float32", num_threads=1).engine.config.kv_bytes_per_token
    llm = LLM(
        folder,
        dtype="float32",
        num_threads=1,
        max_model_len=longest,
        max_num_batched_tokens=budget,
        block_size=block_size,
        enable_prefix_caching=prefix_caching,
        kv_cache_memory=per_token * block_size * (-(-longest // block_size) + 2),
    )
    assert ids(llm.generate(prompts, GREEDY, use_tqdm=False)) == alone["greedy"]
    assert ids(llm.generate(prompts, SEEDED, use_tqdm=False)) == alone["seeded"]
    stats = llm.engine.stats()
    assert stats.num_preemptions > 0
    assert stats.kv_usage == 0


@pytest.mark.parametrize("kv_cache_dtype", ["int8", "fp8"])
def test_with_a_cache_of_8_bits_a_batch_gives_what_each_request_gives_alone(
    folder: Path, prompts: list[list[int]], alone: dict[str, Any], kv_cache_dtype: str
) -> None:
    options = {"dtype": "float32", "num_threads": 1, "kv_cache_dtype": kv_cache_dtype}
    llm = LLM(folder, enable_prefix_caching=False, **options)
    expected = [ids(llm.generate([prompt], SEEDED, use_tqdm=False))[0] for prompt in prompts]
    assert expected != alone["seeded"]
    for changes in ({"max_num_batched_tokens": 7, "block_size": 4}, {"max_num_batched_tokens": 512}):
        llm = LLM(folder, **options, **changes)
        for _ in range(2):
            outputs = llm.generate(prompts, SEEDED, use_tqdm=False)
            assert ids(outputs) == expected
        assert any(output.num_cached_tokens for output in outputs)


def test_the_choices_of_one_request_are_those_of_single_requests(
    folder: Path, prompts: list[list[int]]
) -> None:
    params = SEEDED.replace(n=4)
    with_cache = LLM(folder, dtype="float32", num_threads=1).generate([prompts[9]], params, use_tqdm=False)[0]
    without = LLM(folder, dtype="float32", num_threads=1, enable_prefix_caching=False).generate(
        [prompts[9]], params, use_tqdm=False
    )[0]
    assert [c.token_ids for c in with_cache.outputs] == [c.token_ids for c in without.outputs]
    assert len({tuple(c.token_ids) for c in with_cache.outputs}) > 1
    assert with_cache.num_cached_tokens == 32  # the later choices share both full blocks of 33 tokens
