"""The logits after every token of a given text, from the engine's own pieces: weights, decoder, paged KV cache.

Owns how a text becomes steps: its first part in chunks, as a prompt, the rest one token a step, as in an answer,
because kernels take different ways for many rows and for one. Does not know what logits are compared with. Called by
`scripts/measure_accuracy.py`.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from llmcli.config import EngineConfig
from llmcli.hardware import read_hardware_facts
from llmcli.model.decoder import Decoder
from llmcli.model.facts import read_model_facts
from llmcli.model.forward_batch import KVCache
from llmcli.model.rope import build_cos_sin
from llmcli.model.spec import read_model_spec
from llmcli.model.weights import load_weights
from llmcli.plan import resolve
from llmcli.runtime.forward import build_batch
from llmcli.runtime.kv_memory import allocate_kv_cache
from llmcli.scheduler.step import SequenceSlice, Step
from llmcli.text.tokenizer import load_tokenizer
from llmcli_kernels import select

MAX_WINDOW = 512  # tokens that a model sees of one place of the text
CHUNK = 128
ONE_BY_ONE_SHARE = 8  # the last eighth of a window's tokens have a step each
CHARACTERS_PER_TOKEN = 8  # more than any tokenizer needs


@dataclass(frozen=True)
class Mode:
    """What decides the arithmetic; the values are those of `EngineConfig`."""

    kernels: str
    dtype: str
    kv_cache_dtype: str = "auto"
    lm_head: str = "full"

    @property
    def name(self) -> str:
        kv = "" if self.kv_cache_dtype == "auto" else f", KV {self.kv_cache_dtype}"
        head = "" if self.lm_head == "full" else f", head {self.lm_head}"
        return f"{self.kernels} {self.dtype}{kv}{head}"

    def config(self) -> EngineConfig:
        return EngineConfig(
            device="cpu",
            kernels=self.kernels,
            dtype=self.dtype,  # type: ignore[arg-type]
            kv_cache_dtype=self.kv_cache_dtype,  # type: ignore[arg-type]
            lm_head=self.lm_head,  # type: ignore[arg-type]
        )


def read_windows(folder: Path, passages: Sequence[str], num_tokens: int) -> list[list[int]]:
    """Token ids from places spread evenly over the passages: each window starts with a passage, before it the model's
    own first token, and goes on through the next ones.

    Returns:
        Windows of equal length, one longer than a model's input, with at least num_tokens inputs together.

    Raises:
        ValueError: the text is too short.
    """
    rows = min(MAX_WINDOW, read_model_spec(folder).max_position, num_tokens)
    tokenizer, count = load_tokenizer(folder), -(-num_tokens // rows)
    windows = []
    for index in range(count):
        text = "\n".join(passages[index * len(passages) // count :])
        ids = tokenizer.encode(text[: CHARACTERS_PER_TOKEN * (rows + 1)])
        if len(ids) <= rows:
            raise ValueError(f"the text is too short for {count} windows of {rows} tokens")
        windows.append(ids[: rows + 1])
    return windows


def prompt_rows(length: int) -> int:
    """How many of a window's inputs are computed in chunks; the others one by one."""
    return length - length // ONE_BY_ONE_SHARE


class TeacherForcing:
    """A model in one mode."""

    def __init__(self, decoder: Decoder, cache: KVCache, block_size: int) -> None:
        self.decoder = decoder
        self._cache = cache
        self._block_size = block_size

    @classmethod
    def load(cls, folder: Path, mode: Mode) -> Self:
        """A model as the engine would load it. Sets torch's number of threads, as the engine does."""
        spec = read_model_spec(folder)
        config = resolve(mode.config(), read_model_facts(folder, spec), read_hardware_facts())
        torch.set_num_threads(config.num_threads)
        kernels = select(config.device, config.kernels)
        weights = load_weights(folder, spec, kernels, getattr(torch, config.dtype), lm_head=config.lm_head)
        decoder = Decoder(spec, weights, kernels, build_cos_sin(spec.rope, config.max_model_len))
        return cls(decoder, allocate_kv_cache(config, spec), config.block_size)

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> Tensor:
        """[len(ids), vocab_size] float32: row i is for the token that follows ids[i]."""
        blocks = self._block_table(len(ids))
        rows = []
        for start, end in spans(len(ids)):
            used = blocks[: -(-end // self._block_size)]
            step = Step((SequenceSlice(0, start, tuple(ids[start:end]), used),))
            # The engine asks for the last row of a slice alone; here every one counts.
            batch = replace(build_batch(step, self._block_size), sample_rows=torch.arange(end - start))
            rows.append(self.decoder.forward(batch, self._cache).clone())  # the next step may write there
        return torch.cat(rows)

    def linear_formats(self) -> dict[str, int]:
        """How many linear layers of the decoder, the output head included, are stored in which form."""
        weights = self.decoder.weights
        linears: list[Any] = [weights.lm_head]
        for layer in weights.layers:
            linears += [layer.qkv, layer.o, layer.gate_up, layer.down]
        parts = [part for linear in linears for part in getattr(linear, "parts", (linear,))]
        return dict(Counter(type(getattr(part, "packed", part)).__name__ for part in parts))

    def _block_table(self, length: int) -> tuple[int, ...]:
        """Blocks in no order, so that pages do not lie one behind the other."""
        blocks = list(range(-(-length // self._block_size)))
        random.Random(length).shuffle(blocks)
        return tuple(blocks)


def spans(length: int) -> Iterator[tuple[int, int]]:
    """The slices of a window of `length` inputs."""
    prompt = prompt_rows(length)
    for start in range(0, prompt, CHUNK):
        yield start, min(start + CHUNK, prompt)
    for position in range(prompt, length):
        yield position, position + 1
