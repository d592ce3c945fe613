"""What a benchmark asks for: synthetic prompts of a fixed seed, or prompts from a file.

Names of datasets and of what shapes them are those of `vllm bench`: random, sharegpt, custom. A custom dataset has
the lines that `llmcli run` takes. Knows no engine and no server: `encode` gives token ids for an engine,
`bench/client.py` sends the prompts as they are.
"""

import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal, Protocol

from llmcli import strict_json
from llmcli.errors import UsageError, quote
from llmcli.jobs.batch.input import BadLine, PromptFile
from llmcli.jobs.batch.prompts import PromptEncoder, Tokenizer
from llmcli.jobs.batch.requests import BatchRequest, LineRules

DATASETS = ("random", "sharegpt", "custom")
DEFAULT_NUM_PROMPTS, DEFAULT_INPUT_LEN = 100, 512  # of a random dataset
DEFAULT_OUTPUT_LEN = 128  # also of a line that names no max_tokens
CHARS_PER_TOKEN = 4  # of English; where no tokenizer counts
# The limits of vLLM's sampling of ShareGPT, in tokens.
SHAREGPT_LEAST, SHAREGPT_MOST_PROMPT, SHAREGPT_MOST = 4, 1024, 2048
MAX_DATASET_BYTES = 2 << 30
# Words that most vocabularies hold with the space before them as one token.
_WORDS = (
    "the of and to in is that it was for on are as with they at be this from have or by one had not but what all"
    " were when we there can an your which their said if do will each about how up out them then she many some so"
    " these would other into has more her two like him see time could no make than first been its who now people"
    " my made over did down only way find use may water long little very after words called just where most know"
)
WORDS = tuple(_WORDS.split())

Kind = Literal["text", "messages", "token_ids"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadPlan:
    """Which prompts, and how many.

    Attributes:
        dataset: one of DATASETS.
        path: file of a dataset that is not random.
        num_prompts: None takes every line of a file.
        input_len, output_len: tokens; a dataset's own lengths where None.
        range_ratio: random lengths lie within this share around theirs, 0..1 (1 left out).
        prefix_len: tokens that all random prompts begin with, besides `input_len` of their own.
    """

    dataset: str = "random"
    path: Path | None = None
    num_prompts: int | None = None
    input_len: int | None = None
    output_len: int | None = None
    range_ratio: float = 0.0
    prefix_len: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise UsageError(
                f"--dataset-name must be one of {', '.join(DATASETS)}, got {quote(self.dataset)}",
                fix="--dataset FILE.jsonl takes the lines that llmcli run takes",
            )
        if self.dataset == "random" and self.path is not None:
            raise UsageError(
                "--dataset-name random makes its own prompts", fix="leave out --dataset or --dataset-path"
            )
        if self.dataset != "random" and self.path is None:
            raise UsageError(f"--dataset-name {self.dataset} needs a file", fix="give --dataset FILE")
        for name in ("num_prompts", "input_len", "output_len"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if not 0 <= self.range_ratio < 1:
            raise UsageError(f"--random-range-ratio must be at least 0 and below 1, got {self.range_ratio:g}")

    @property
    def name(self) -> str:
        """For the names of rows: what two runs must share to be compared."""
        lengths = "".join(
            f" {short}{value}"
            for short, value in (("in", self.input_len), ("out", self.output_len))
            if value is not None
        )
        source = self.dataset if self.path is None else self.path.name
        count = f" n{self.num_prompts}" if self.num_prompts is not None else ""
        more = f" ±{self.range_ratio:.0%}" if self.range_ratio else ""
        prefix = f" prefix{self.prefix_len}" if self.prefix_len else ""
        return f"{source}{lengths}{more}{prefix}{count}"


@dataclass(frozen=True, slots=True)
class Work:
    """One request.

    Attributes:
        kind: what `prompt` holds, as in BatchRequest.
        num_output: tokens to ask for.
        num_prompt: tokens of the prompt, if known or guessed.
    """

    kind: Kind
    prompt: Any
    num_output: int
    num_prompt: int = 0


class Counter(Protocol):
    """What is needed of a tokenizer to make texts of a length."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in tokens of one random request."""

    prompt: int
    output: int


def random_lengths(plan: WorkloadPlan, source: random.Random) -> list[Lengths]:
    """For each prompt; both drawn evenly from the range around their length, as vLLM does."""

    def draw(length: int) -> int:
        low = max(1, math.floor(length * (1 - plan.range_ratio)))
        return source.randint(low, math.ceil(length * (1 + plan.range_ratio)))

    num_input, num_output = plan.input_len or DEFAULT_INPUT_LEN, plan.output_len or DEFAULT_OUTPUT_LEN
    return [
        Lengths(draw(num_input), draw(num_output)) for _ in range(plan.num_prompts or DEFAULT_NUM_PROMPTS)
    ]


def random_ids(plan: WorkloadPlan, vocab_size: int) -> list[Work]:
    """A random dataset as token ids, for an engine."""
    source = random.Random(plan.seed)
    lengths = random_lengths(plan, source)
    prefix = [source.randrange(vocab_size) for _ in range(plan.prefix_len)]
    works = []
    for each in lengths:
        ids = prefix + [source.randrange(vocab_size) for _ in range(each.prompt)]
        works.append(Work("token_ids", ids, each.output, len(ids)))
    return works


def random_texts(plan: WorkloadPlan, counter: Counter | None) -> list[Work]:
    """A random dataset as texts, for a server: exact by a tokenizer, else one common word for each token."""
    source = random.Random(plan.seed)
    lengths = random_lengths(plan, source)
    prefix = _words(plan.prefix_len, source, counter)
    works = []
    for each in lengths:
        own = _words(each.prompt, source, counter)
        text = f"{prefix} {own}" if prefix else own
        count = plan.prefix_len + each.prompt if counter is None else len(counter.encode(text))
        works.append(Work("text", text, each.output, count))
    return works


def _words(count: int, source: random.Random, counter: Counter | None) -> str:
    text = " ".join(source.choice(WORDS) for _ in range(count))
    if counter is None or not count:
        return text
    while len(ids := counter.encode(text)) < count:
        text += " " + source.choice(WORDS)
    return counter.decode(ids[:count])


def read_dataset(plan: WorkloadPlan, counter: Counter | None = None) -> list[Work]:
    """The prompts of a file, in its order, from the start again where more are wanted than it has.

    Args:
        counter: for the lengths that ShareGPT's answers give; None guesses them from the characters.

    Raises:
        UsageError: no such file, bad lines, or no prompts in it.
    """
    assert plan.path is not None, "WorkloadPlan asks for it"
    works = _sharegpt(plan, counter) if plan.dataset == "sharegpt" else _lines(plan)
    if not works:
        raise UsageError(f"there are no prompts in {quote(str(plan.path))}")
    return list(islice(cycle(works), plan.num_prompts or len(works)))


def _lines(plan: WorkloadPlan) -> list[Work]:
    rules = LineRules()  # the model that a line names is not asked for: the same file measures several
    works = []
    with PromptFile.open(str(plan.path), sys.stdin.buffer) as file:
        file.validate(rules).check(file.name)
        for request in islice(file.requests(rules), plan.num_prompts):
            assert not isinstance(request, BadLine), "validate has refused them"
            works.append(_work(request, plan))
    return works


def _work(request: BatchRequest, plan: WorkloadPlan) -> Work:
    own = request.sampling.get("max_tokens")
    num_output = plan.output_len or own or DEFAULT_OUTPUT_LEN
    prompt: Any = request.prompt
    if request.system:
        messages = [{"role": "user", "content": prompt}] if request.kind == "text" else list(prompt)
        return Work("messages", [{"role": "system", "content": request.system}, *messages], num_output)
    return Work(request.kind, prompt, num_output)


def _sharegpt(plan: WorkloadPlan, counter: Counter | None) -> list[Work]:
    """The first question of each conversation, as long as its first answer; the short and the long ones left out."""
    works = []
    for entry in _conversations(plan.path):
        question, answer = entry
        prompt_len = _count(question, counter)
        output_len = plan.output_len or _count(answer, counter)
        total = prompt_len + output_len
        if min(prompt_len, output_len) < SHAREGPT_LEAST:
            continue
        if prompt_len <= SHAREGPT_MOST_PROMPT and total <= SHAREGPT_MOST:
            works.append(Work("text", question, output_len, prompt_len))
    random.Random(plan.seed).shuffle(works)
    return works


def _conversations(path: Path | None) -> list[tuple[str, str]]:
    """(question, answer) of a file in ShareGPT's form: [{"conversations": [{"from": ..., "value": ...}, ...]}]."""
    assert path is not None
    try:
        if path.stat().st_size > MAX_DATASET_BYTES:
            raise UsageError(f"{quote(str(path))} has more than {MAX_DATASET_BYTES >> 30} GiB")
        entries = strict_json.loads(path.read_bytes())
        if not isinstance(entries, list):
            raise ValueError("it is no list")
        return [
            (turns[0]["value"], turns[1]["value"])
            for entry in entries
            if len(turns := entry.get("conversations", entry.get("conversation", []))) >= 2
        ]
    except OSError as error:
        raise UsageError(f"can not read {quote(str(path))}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{quote(str(path))} is not in ShareGPT's form: {quote(str(error))}",
            fix="for the lines that llmcli run takes: --dataset-name custom",
        ) from None


def _count(text: str, counter: Counter | None) -> int:
    return len(text) // CHARS_PER_TOKEN if counter is None else len(counter.encode(text))


def encode(works: Sequence[Work], tokenizer: Tokenizer) -> list[Work]:
    """The same requests as token ids.

    Raises:
        RequestError: a template refuses messages, or the model has none.
    """
    encoder, encoded = PromptEncoder(tokenizer), []
    for index, work in enumerate(works):
        ids = work.prompt
        if work.kind != "token_ids":
            request = BatchRequest(line=index + 1, index=index, id=None, kind=work.kind, prompt=work.prompt)
            ids = encoder.encode(request)
        encoded.append(Work("token_ids", list(ids), work.num_output, len(ids)))
    return encoded
