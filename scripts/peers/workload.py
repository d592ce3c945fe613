"""What is measured: the tests, their prompts, and the models.

Plain values from fixed seeds, standard library only: the workers of all peers import this, each in its own
environment. Knows no peer.
"""

import random
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["prompt", "decode", "mixed", "first-token"]
Request = tuple[list[int], int]

VOCAB = 32000  # of prompts: ids that every model here has
MIXED_SEED = 42
MAX_MODEL_LEN = 1024


@dataclass(frozen=True, slots=True)
class BenchTest:
    """One thing to measure.

    Attributes:
        kind: "prompt" (processing, tokens/s), "decode" (tokens/s from when every sequence has its first token),
            "mixed" (output tokens/s of many requests of different lengths, prompt processing included) or
            "first-token" (seconds from starting the command).
        batch: sequences at once; of "mixed" the number of requests.
        prompt_tokens: of each sequence; of "mixed" the most, the least is an eighth of it.
        output_tokens: decoded after the first token; of "mixed" the most, the least is half of it.
    """

    name: str
    kind: Kind
    batch: int = 1
    prompt_tokens: int = 128
    output_tokens: int = 128

    @property
    def unit(self) -> str:
        return "s" if self.kind == "first-token" else "tok/s"

    def quick(self) -> "BenchTest":
        """The same with so few tokens that the figure means nothing."""
        batch = min(self.batch, 4) if self.kind == "mixed" else self.batch
        return replace(self, batch=batch, prompt_tokens=16, output_tokens=4)

    def requests(self) -> list[Request]:
        """Prompts as token ids, each with the number of tokens to generate."""
        if self.kind == "mixed":
            return mixed_requests(self.batch, self.prompt_tokens, self.output_tokens)
        count = 1 if self.kind == "prompt" else self.output_tokens + 1
        return [(prompt(self.prompt_tokens, seed=100 + number), count) for number in range(self.batch)]


@dataclass(frozen=True, slots=True)
class Model:
    """A random checkpoint in a real model's shape.

    Attributes:
        shape: as scripts/make_random_model.py calls it; names the files.
        peers: who runs it; the names of `peers.py`.
        kinds: the tests that are made with it.
        kv_gib: size of the KV cache of those who want to be told.
        repeat_layer: how many layers llama.cpp's file has, all like its first one, so that no large dense model
            need be written; 0 converts the whole dense model.
    """

    name: str
    shape: str
    peers: tuple[str, ...]
    kinds: tuple[Kind, ...] = ("prompt", "decode", "mixed", "first-token")
    kv_gib: int = 2
    repeat_layer: int = 0


TESTS = {
    test.name: test
    for test in (
        BenchTest("prompt", "prompt", prompt_tokens=512),
        *(BenchTest(f"decode-{batch}", "decode", batch=batch) for batch in (1, 4, 8, 16)),
        BenchTest("mixed", "mixed", batch=64, prompt_tokens=256),
        BenchTest("first-token", "first-token"),
    )
}

OTHERS = ("llama.cpp", "vllm", "vllm-awq", "transformers")
MODELS = {
    model.name: model
    for model in (
        Model("1.1b", "tinyllama-1.1b", ("llmcli", *OTHERS, "llmcli-avx2", "llmcli-torch")),
        Model("0.5b", "qwen2.5-0.5b", ("llmcli", *OTHERS)),
        # the mixed requests want more memory for their KV cache than the model itself, and no peer runs them
        Model(
            "7b",
            "llama-2-7b",
            ("llmcli", "llama.cpp"),
            kinds=("prompt", "decode", "first-token"),
            kv_gib=3,
            repeat_layer=32,
        ),
    )
}


def prompt(length: int, seed: int) -> list[int]:
    source = random.Random(seed)
    return [source.randrange(3, VOCAB) for _ in range(length)]


def mixed_requests(count: int, longest_prompt: int, longest_output: int) -> list[Request]:
    """Requests of mixed lengths, the same ones each time: 32 to 256 and 64 to 128 tokens at full size."""
    source = random.Random(MIXED_SEED)
    requests = []
    for _ in range(count):
        num_prompt = source.randint(longest_prompt // 8, longest_prompt)
        num_output = source.randint(longest_output // 2, longest_output)
        requests.append(([source.randrange(3, VOCAB) for _ in range(num_prompt)], num_output))
    return requests
