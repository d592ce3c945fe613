"""How the next token is chosen: `SamplingParams`, validated when it is made.

Names and meanings are vLLM's and OpenAI's. Knows no tokenizer and no tensor: what depends on the vocabulary
(token ids in range) is checked by the engine at admission.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from llmcli.errors import RequestError, quote
from llmcli.nearest import did_you_mean
from llmcli.structured import StructuredOutput

MAX_SEED = 2**63 - 1
MAX_N = 16
MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 256
MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 300
MAX_TOKENS = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """The sampling parameters of one request.

    Args:
        n: number of choices, 1..16.
        temperature: 0 is greedy, else 0..2 divides the logits.
        top_k: keep the k most likely tokens; 0 or -1 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches top_p, in (0, 1].
        min_p: drop tokens less likely than min_p times the most likely one, in [0, 1].
        repetition_penalty: divides (or multiplies, if negative) logits of tokens seen in prompt or output (CTRL paper).
        presence_penalty, frequency_penalty: subtracted once, or per occurrence, for tokens of the output; -2..2.
        seed: the random numbers depend on (seed, output position, choice) only; None draws one per request.
        stop: strings that end the output; the text before the match is kept, the match is dropped.
        stop_token_ids: ids that end the output.
        max_tokens: number of output tokens; None is the room left in the context.
        min_tokens: no stop id or end-of-sequence id is sampled before this many.
        ignore_eos: go on after the end-of-sequence token.
        logit_bias: token id -> value in [-100, 100] added to the logit.
        logprobs: report this many most likely tokens at each position, 0..20 (0: the sampled one only).
        include_stop_str_in_output: keep the matched stop string.
        skip_special_tokens: leave control tokens out of the text.
        structured: the form that the answer must have; it goes before min_tokens, ignore_eos and logit_bias.

    Raises:
        RequestError: a value is out of range; `param` names it.
    """

    n: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    max_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    structured: StructuredOutput | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        for name in ("stop", "stop_token_ids"):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)):
                raise RequestError(f"{name} must be a list, got {quote(value)}", param=name)
            object.__setattr__(self, name, tuple(value))
        if self.top_k == -1 and not isinstance(self.top_k, bool):
            object.__setattr__(self, "top_k", 0)

        _check_int("n", self.n, 1, MAX_N)
        _check_float("temperature", self.temperature, 0, 2)
        _check_int("top_k", self.top_k, 0, MAX_TOKENS)
        _check_float("top_p", self.top_p, 0, 1, above=True)
        _check_float("min_p", self.min_p, 0, 1)
        _check_float("repetition_penalty", self.repetition_penalty, 0, 10, above=True)
        _check_float("presence_penalty", self.presence_penalty, -2, 2)
        _check_float("frequency_penalty", self.frequency_penalty, -2, 2)
        if self.seed is not None:
            _check_int("seed", self.seed, 0, MAX_SEED)
        if self.max_tokens is not None:
            _check_int("max_tokens", self.max_tokens, 1, MAX_TOKENS)
        _check_int("min_tokens", self.min_tokens, 0, MAX_TOKENS)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(
                f"min_tokens {self.min_tokens} is greater than max_tokens {self.max_tokens}",
                param="min_tokens",
            )
        if self.logprobs is not None:
            _check_int("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        for name in ("ignore_eos", "include_stop_str_in_output", "skip_special_tokens"):
            if not isinstance(getattr(self, name), bool):
                raise RequestError(
                    f"{name} must be true or false, got {quote(getattr(self, name))}", param=name
                )
        if self.structured is not None and not isinstance(self.structured, StructuredOutput):
            raise RequestError(
                f"structured must be a StructuredOutput, got {quote(self.structured, 80)}", param="structured"
            )
        self._check_stop()
        self._check_logit_bias()

    def _check_stop(self) -> None:
        if len(self.stop) > MAX_STOP_STRINGS:
            raise RequestError(f"stop has {len(self.stop)} strings, at most {MAX_STOP_STRINGS}", param="stop")
        for text in self.stop:
            if not isinstance(text, str) or not 1 <= len(text) <= MAX_STOP_CHARS:
                raise RequestError(
                    f"each stop must be a string of 1 to {MAX_STOP_CHARS} characters, got {quote(text)}",
                    param="stop",
                )
        for token_id in self.stop_token_ids:
            _check_int("stop_token_ids", token_id, 0, MAX_TOKENS)

    def _check_logit_bias(self) -> None:
        bias = self.logit_bias
        if not isinstance(bias, Mapping):
            raise RequestError(
                f"logit_bias must map token ids to numbers, got {quote(bias)}", param="logit_bias"
            )
        if len(bias) > MAX_LOGIT_BIAS:
            raise RequestError(
                f"logit_bias has {len(bias)} entries, at most {MAX_LOGIT_BIAS}", param="logit_bias"
            )
        checked: dict[int, float] = {}
        for key, value in bias.items():
            if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) <= 10:
                key = int(key)  # JSON objects have string keys
            _check_int("logit_bias", key, 0, MAX_TOKENS)
            _check_float("logit_bias", value, -100, 100)
            checked[key] = float(value)
        object.__setattr__(self, "logit_bias", checked)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def uses_history(self) -> bool:
        """Whether choosing a token needs the tokens that came before it."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated again; an unknown name is a RequestError with the nearest one."""
        check_names(changes)
        return dataclasses.replace(self, **changes)


FIELD_NAMES = tuple(f.name for f in dataclasses.fields(SamplingParams))


def check_names(names: Mapping[str, object]) -> None:
    """Raise a RequestError for the first name that is no sampling field, with the nearest one."""
    for name in names:
        if name not in FIELD_NAMES:
            fix = did_you_mean(name, FIELD_NAMES) or f"known fields: {', '.join(FIELD_NAMES)}"
            raise RequestError(f"unknown sampling field {quote(name)}", fix=fix, param=name)


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} must be an integer in {low}..{high}, got {quote(value)}", param=name)


def _check_float(name: str, value: object, low: float, high: float, *, above: bool = False) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high or (above and value == low):  # type: ignore[arg-type,operator]
        bounds = f"above {low:g} and at most {high:g}" if above else f"in {low:g}..{high:g}"
        raise RequestError(f"{name} must be a number {bounds}, got {quote(value)}", param=name)
