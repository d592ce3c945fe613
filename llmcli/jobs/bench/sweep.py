"""`bench sweep`: prompt processing and generation over lists of lengths, batch sizes and engine options.

The columns are those of llama.cpp's batched-bench: for each combination PP, TG and B (prompt and output tokens of
one sequence, sequences), N_KV (tokens in the KV cache at the end), and seconds and tokens per second of the prompts
(T_PP, S_PP), of the generation (T_TG, S_TG) and of both (T, S). One engine serves all combinations of lengths and
batches; each combination of engine options gets one of its own. Knows no table and no file.
"""

import dataclasses
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from llmcli.config import EngineConfig, ResolvedConfig, parse_number
from llmcli.errors import UsageError, quote
from llmcli.jobs.bench.engine import Clock, random_prompts, run_batch
from llmcli.jobs.bench.latency import check_batch
from llmcli.jobs.bench.result import Row
from llmcli.nearest import nearest

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine

MAX_COMBINATIONS = 1000
# Option names that people type -> fields of EngineConfig; all else is called as its field.
NAMES = {"threads": "num_threads", "prefix_caching": "enable_prefix_caching"}
SWITCHES = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """All combinations of these are measured.

    Attributes:
        input_lens, output_lens: tokens of each sequence.
        batch_sizes: sequences at once.
        variants: changes of the engine's configuration; an empty one is the configuration as it is.
    """

    input_lens: tuple[int, ...] = (128,)
    output_lens: tuple[int, ...] = (128,)
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    variants: tuple[Mapping[str, Any], ...] = ({},)
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("input_lens", "output_lens", "batch_sizes"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                option = name.replace("_", "-").removesuffix("s")
                raise UsageError(f"--{option} must be one or more numbers of at least 1, got {list(values)}")
        if self.repeats < 1:
            raise UsageError(f"--repeats must be at least 1, got {self.repeats}")
        count = len(self.variants) * len(self.points())
        if count > MAX_COMBINATIONS:
            raise UsageError(f"the sweep has {count} combinations, at most {MAX_COMBINATIONS} are allowed")

    def points(self) -> list[tuple[int, int, int]]:
        """(input, output, batch) in the order in which they run."""
        return list(dict.fromkeys(itertools.product(self.input_lens, self.output_lens, self.batch_sizes)))

    def check_fits(self, config: ResolvedConfig) -> None:
        """Raise a UsageError for the first combination that an engine has no room for."""
        for num_input, num_output, batch in self.points():
            check_batch(num_input, num_output, batch, config)


def variants_of(texts: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """All combinations of `NAME=VALUE,VALUE` texts: `threads=1,2`, `kv-cache-dtype=auto,int8`.

    Raises:
        UsageError: no such option of the engine, or a value that is none for it.
    """
    choices: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        field = name.strip().lstrip("-").replace("-", "_")
        field = NAMES.get(field, field)
        known = {each.name: each.type for each in dataclasses.fields(EngineConfig)}
        if field not in known:
            near = nearest(field, [*known, *NAMES])
            fix = f"did you mean {near[0].replace('_', '-')}?" if near else ""
            raise UsageError(f"--vary: the engine has no option {quote(name)}", fix=fix)
        if not equals or not values.strip(", "):
            raise UsageError(f"--vary must be like threads=1,2, got {quote(text)}")
        if field in choices:
            raise UsageError(f"--vary {quote(name)} is given twice", fix=f"--vary {quote(name)}=A,B,C")
        choices[field] = [
            _value(name, part.strip(), set(get_args(known[field]) or (known[field],)))
            for part in values.split(",")
            if part.strip()
        ]
    names = list(choices)
    return tuple(dict(zip(names, each, strict=True)) for each in itertools.product(*choices.values()))


def _value(name: str, text: str, kinds: set[Any]) -> Any:
    """A value of one of the field's types; of a choice of texts, the text."""
    if bool in kinds:
        if text.lower() not in SWITCHES:
            raise UsageError(f"--vary {quote(name)} must be on or off, got {quote(text)}")
        return SWITCHES[text.lower()]
    if type(None) in kinds and text.lower() in ("auto", "none"):
        return None
    if int not in kinds and float not in kinds:
        return text
    try:
        return parse_number(text) if int in kinds else float(text)
    except ValueError:
        raise UsageError(f"--vary {quote(name)} must be a number, got {quote(text)}") from None


def name_of(variant: Mapping[str, Any]) -> str:
    """`threads=2 kv-cache-dtype=int8`, by the names of the options."""
    options = {field: option for option, field in NAMES.items()}
    return " ".join(f"{options.get(k, k).replace('_', '-')}={v}" for k, v in variant.items())


def run_sweep(
    engine: "Engine",
    plan: SweepPlan,
    variant: Mapping[str, Any],
    on_run: Callable[[str], None],
    *,
    clock: Clock = time.perf_counter,
) -> Iterator[Row]:
    """Measure every combination of lengths and batches on one engine; each row comes after every repeat.

    Raises:
        UsageError: the engine is too small.
        EngineError: a request failed.
    """
    plan.check_fits(engine.config)
    source, vocab = random.Random(plan.seed), engine.spec.vocab_size
    on_run("warm-up")
    widest = max(plan.batch_sizes)
    warm = min(8, *plan.input_lens)
    run_batch(engine, random_prompts(source, vocab, widest, warm), min(8, *plan.output_lens), clock=clock)
    for num_input, num_output, batch in plan.points():
        test = f"pp{num_input}+tg{num_output}" + f" [{name_of(variant)}]" * bool(variant)
        runs: list[dict[str, float]] = []
        for repeat in range(plan.repeats):
            which = "" if plan.repeats == 1 else f", run {repeat + 1} of {plan.repeats}"
            on_run(f"{test} at batch {batch}{which}")
            prompts = random_prompts(source, vocab, batch, num_input)
            times = run_batch(engine, prompts, num_output, clock=clock)
            prompt_s = max(times.first_token_s)
            late = times.num_output - times.num_early
            runs.append(
                {"T_PP": prompt_s, "T_TG": times.total_s - prompt_s, "T": times.total_s, "late": late}
            )
            yield _row(test, num_input, num_output, batch, runs, variant)


def _row(
    test: str,
    num_input: int,
    num_output: int,
    batch: int,
    runs: list[dict[str, float]],
    variant: Mapping[str, Any],
) -> Row:
    """The columns hold means over the runs; the samples are of S, all tokens over all time.

    The prompts' time ends with the last sequence's first token; S_TG counts the tokens that came after it ("late").
    """
    seconds = {name: statistics.fmean(run[name] for run in runs) for name in ("T_PP", "T_TG", "T")}
    total = batch * (num_input + num_output)
    late = statistics.fmean(run["late"] for run in runs)
    details: dict[str, Any] = {
        "PP": num_input,
        "TG": num_output,
        "B": batch,
        "N_KV": total,
        **seconds,
        "S_PP": batch * num_input / seconds["T_PP"],
        "S_TG": late / seconds["T_TG"] if late and seconds["T_TG"] > 0 else None,
        "S": total / seconds["T"],
        "variant": dict(variant),
    }
    samples = tuple(total / run["T"] for run in runs)
    return Row(test=test, batch=batch, unit="tok/s", samples=samples, details=details)
