"""Whole models through the engine on the GPU: the greedy ids of the CPU's plain float32 reference, token by token.

Owns the models, the prompts and the comparison. The truth is computed in the same process: the same engine on the
CPU with the kernel set "reference" in float32. Up to the first id that differs both have seen the same tokens, so
log probabilities are compared there too. How far they may be apart in float16 is measured: a few times what the
reference itself is off when it rounds to float16. Another id passes where the truth has both that close together,
and the rest is compared from behind that place. In a dry run the engine runs on the CPU with Triton's kernels in
the interpreter.
"""

import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import llmcli_kernels
from llmcli import LLM, SamplingParams
from scripts.gpu_bench.session import Row, Session
from scripts.gpu_bench.stages import ROOT
from tests.tiny_models import (
    awq_checkpoints,
    base_config,
    dense_checkpoint,
    transformers_model,
    write_tokenizer,
)

BUNDLED = ROOT / "llmcli" / "assets" / "tiny_chat"
SHARED_MODELS = ROOT.parent / "shared" / "data" / "models"
TOKENS = 40
DRY_TOKENS = 2
LOGPROBS = 5
OPTIONS: dict[str, Any] = {
    "kv_cache_memory": 64 << 20,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 64,
    "seed": 0,
}
# Natural logarithms: how far log probabilities may be from the truth's, in float32, and at least in float16.
FLOAT32_FAR = 2e-4
FLOAT16_LEAST_FAR = 0.03
TIMES_ROUNDING = 3.0  # of the largest difference that float16 makes in the reference
TEXTS = ("Hello!", "Tell me a story about a dragon.", "What is 3 plus 4?", "What sound does a cow make?")


@dataclass(frozen=True)
class Model:
    """A model to compare.

    Attributes:
        folder: makes it when it is first needed.
        prompts: token ids.
    """

    name: str
    folder: Callable[[], Path]
    prompts: Callable[[LLM], list[list[int]]]


@dataclass(frozen=True)
class Answer:
    """Ids, and for each place the log probabilities of the likeliest tokens."""

    ids: list[int]
    likely: list[dict[int, float]]


@dataclass
class Comparison:
    """Of a model's answers.

    Attributes:
        same: every id is equal, or differs where the truth has both tokens close together.
        differences: what was found at each place where an id differs, in words.
        far: the largest difference of log probabilities.
    """

    same: bool = True
    differences: list[str] = field(default_factory=list)
    far: float = 0.0


def run(session: Session, kind: str) -> None:
    """Compare the models of one kind: "bundled", "int4", "float", or "trained" (those beside the repository)."""
    with tempfile.TemporaryDirectory(prefix="gpu_check-models-") as folder:
        for model in list(models(kind, Path(folder)))[: 1 if session.dry else None]:
            reference = cache(partial(on_cpu, model.folder))
            for dtype in ("float16",) if session.dry else ("float16", "float32"):
                name = f"greedy {model.name} {dtype}"
                session.case(name, partial(_case, session.dry, model, reference, dtype))


def _case(dry: bool, model: Model, reference: Callable[[], LLM], dtype: str) -> Row:
    """All prompts in one batch, so that sequences of several lengths share steps."""
    truth = reference()
    prompts, tokens = model.prompts(truth), TOKENS
    if dry:
        prompts, tokens = prompts[:1], DRY_TOKENS
    expected = answers_of(truth, prompts, tokens)
    bound = bound_of(model, dtype, prompts, expected)
    result = _compare_all((interpreted if dry else on_gpu)(model.folder(), dtype), prompts, expected, bound)
    return {
        "kind": "check",
        "correct": result.same and result.far <= bound,
        "note": "; ".join(result.differences),
        "tokens": tokens * len(prompts),
        "logprob_error": result.far,
        "bound": bound,
    }


def bound_of(model: Model, dtype: str, prompts: list[list[int]], expected: list[Answer]) -> float:
    """How far log probabilities may be from the truth's."""
    if dtype == "float32":
        return FLOAT32_FAR
    rounded = _compare_all(on_cpu(model.folder, dtype), prompts, expected, bound=float("inf"))
    return max(FLOAT16_LEAST_FAR, TIMES_ROUNDING * rounded.far)


def _compare_all(
    candidate: LLM, prompts: list[list[int]], expected: list[Answer], bound: float
) -> Comparison:
    answers = partial(answers_of, candidate)
    found = answers(prompts, len(expected[0].ids))
    result = Comparison()
    for prompt, theirs, ours in zip(prompts, expected, found, strict=True):
        compare(answers, prompt, theirs, ours, bound, result)
    return result


def compare(
    answers: Callable[[list[list[int]], int], list[Answer]],
    prompt: list[int],
    expected: Answer,
    found: Answer,
    bound: float,
    result: Comparison,
) -> None:
    """Add what one prompt shows to `result`.

    Args:
        answers: asks the candidate again, from behind a place where the truth has two tokens within `bound`.
    """
    start = 0
    while start < len(expected.ids):
        pairs = enumerate(zip(expected.ids[start:], found.ids, strict=True))
        same = next((count for count, (theirs, ours) in pairs if theirs != ours), len(found.ids))
        for theirs, ours in zip(expected.likely[start:], found.likely[: same + 1], strict=False):
            result.far = max(result.far, _distance(theirs, ours))
        place = start + same
        if place == len(expected.ids):
            return
        likely, other = expected.likely[place], found.ids[same]
        margin = likely[expected.ids[place]] - likely.get(other, float("-inf"))
        result.differences.append(
            f"token {place} is {other}, the truth has {expected.ids[place]} by a margin of {margin:.4f}"
        )
        if margin > bound:
            result.same = False
            return
        start = place + 1
        if start < len(expected.ids):
            (found,) = answers([prompt + expected.ids[:start]], len(expected.ids) - start)


def _distance(theirs: dict[int, float], ours: dict[int, float]) -> float:
    """Largest difference among the tokens that both name; infinite where they name none together."""
    shared = theirs.keys() & ours.keys()
    return max((abs(theirs[token] - ours[token]) for token in shared), default=float("inf"))


def answers_of(llm: LLM, prompts: list[list[int]], tokens: int) -> list[Answer]:
    params = SamplingParams(temperature=0, max_tokens=tokens, logprobs=LOGPROBS, ignore_eos=True)
    answers = []
    for output in llm.generate(prompts, params, use_tqdm=False):
        choice = output.outputs[0]
        places = [{each.token_id: each.logprob for each in place.top} for place in choice.logprobs or ()]
        answers.append(Answer(list(choice.token_ids), places))
    return answers


def on_cpu(folder: Callable[[], Path], dtype: str = "float32") -> LLM:
    return LLM(folder(), device="cpu", kernels="reference", dtype=dtype, **OPTIONS)


def on_gpu(folder: Path, dtype: str, **changes: Any) -> LLM:
    """With the checked-in tile sizes, not those that the user's own tuning found."""
    with patch("llmcli.runtime.tuning_file.user_tuning_file", return_value=None):
        return LLM(folder, device="cuda", kernels="triton", dtype=dtype, **OPTIONS | changes)


def interpreted(folder: Path, dtype: str) -> LLM:
    """The engine on the CPU, its builder handed the GPU's kernels, which the interpreter runs."""
    kernels = llmcli_kernels.select("cuda", "triton")
    with patch.object(llmcli_kernels, "select", lambda *_, **__: kernels):
        return LLM(folder, device="cpu", kernels="reference", dtype=dtype, **OPTIONS)


def models(kind: str, folder: Path) -> Iterator[Model]:
    if kind == "bundled":
        yield Model("tiny-chat (int4, groups of 64)", lambda: BUNDLED, _texts)
    for name, make in RANDOM_MODELS.get(kind, {}).items():
        yield Model(name, cache(partial(make, folder / name.replace(" ", "-"))), _random_prompts)
    if kind == "trained":
        for path in sorted(SHARED_MODELS.glob("*/golden_greedy.json")):
            yield Model(path.parent.name, partial(Path, path.parent), _texts)


def _texts(llm: LLM) -> list[list[int]]:
    return [llm.get_tokenizer().encode(text) for text in TEXTS]


def _random_prompts(llm: LLM) -> list[list[int]]:
    """Lengths around the edges of pages and of the step's token budget."""
    source = random.Random(0)
    vocabulary = llm.engine.spec.vocab_size
    return [[source.randrange(3, vocabulary) for _ in range(length)] for length in (1, 15, 16, 17, 63, 70)]


def _dense(changes: dict[str, Any], folder: Path) -> Path:
    config = base_config(**SIZES | changes)
    dense_checkpoint(folder, config, transformers_model(config))
    write_tokenizer(folder, config["vocab_size"])
    return folder


def _int4(version: str, group: int, folder: Path) -> Path:
    config = base_config(**SIZES)
    quantized, _ = awq_checkpoints(folder, config, version, group)
    write_tokenizer(quantized, config["vocab_size"])
    return quantized


# Sizes of the tiny models: heads of 64, two query heads for each key head.
SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}
QWEN3 = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": 128}
MISTRAL = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 20}
RANDOM_MODELS: dict[str, dict[str, Callable[[Path], Path]]] = {
    "int4": {
        "llama int4 groups of 128": partial(_int4, "gemm", 128),
        "llama int4 groups of 32": partial(_int4, "gemv", 32),
    },
    "float": {
        "llama float": partial(_dense, {}),
        "qwen3 float": partial(_dense, QWEN3),
        "mistral float, sliding window": partial(_dense, MISTRAL),
    },
}
