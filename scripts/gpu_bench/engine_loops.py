"""The engine's loop: the same greedy ids with graphs and without, one step ahead and not, as the CPU's reference has.

Owns the four loops and a thousand random steps. The truth and how an id may differ from it are those of
`greedy_ids.py`; here no log probabilities are asked for, so that the sampler inside of the graphs draws. In a dry run
a graph is the function that would be captured, and the kernels run in the interpreter.
"""

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from llmcli import LLM, SamplingParams
from llmcli.engine.engine import Engine
from llmcli.runtime.decode_graphs import DecodeGraphs
from llmcli.runtime.kv_memory import allocate_kv_cache
from llmcli.runtime.runner import Runner
from scripts.gpu_bench.greedy_ids import (
    Answer,
    Model,
    answers_of,
    bound_of,
    interpreted,
    models,
    on_cpu,
    on_gpu,
)
from scripts.gpu_bench.session import Row, Session
from tests.tiny_models import not_captured

TOKENS, DRY_TOKENS = 40, 3
STEPS, DRY_STEPS = 1000, 12
MOST_OPEN, DRY_MOST_OPEN = 8, 2
ABORTED = 0.02  # of the steps
LOOPS: dict[str, dict[str, bool]] = {
    "graphs, one ahead": {},
    "graphs, one at a time": {"async_scheduling": False},
    "eager, one ahead": {"enforce_eager": True},
    "eager, one at a time": {"enforce_eager": True, "async_scheduling": False},
}


def run(session: Session, kind: str) -> None:
    """All loops with each model of a kind, see `greedy_ids.py`."""
    with tempfile.TemporaryDirectory(prefix="gpu_check-models-") as folder:
        for model in list(models(kind, Path(folder)))[: 1 if session.dry else None]:
            for dtype in ("float16",) if session.dry else ("float16", "float32"):
                truth = cache(partial(_truth, session.dry, model, dtype))
                for name, loop in LOOPS.items():
                    made = partial(_make, session.dry, model.folder, dtype, loop)
                    case = f"{model.name} {dtype}: {name}"
                    session.case(f"greedy {case}", partial(_greedy, made, truth))
                    session.case(f"random steps {case}", partial(_random_steps, session.dry, made, truth))


@dataclass(frozen=True)
class Truth:
    """Prompts, what the reference answers each of them alone, and how close two tokens may be for either to do."""

    prompts: list[list[int]]
    answers: list[Answer]
    bound: float


def _truth(dry: bool, model: Model, dtype: str) -> Truth:
    llm = on_cpu(model.folder)
    prompts = model.prompts(llm)[: 2 if dry else None]
    answers = [answers_of(llm, [prompt], DRY_TOKENS if dry else TOKENS)[0] for prompt in prompts]
    return Truth(prompts, answers, bound_of(model, dtype, prompts, answers))


def _make(dry: bool, folder: Callable[[], Path], dtype: str, loop: dict[str, bool]) -> LLM:
    if not dry:
        return on_gpu(folder(), dtype, **loop)
    llm = interpreted(folder(), dtype)
    engine = llm.engine
    engine.config = replace(engine.config, async_scheduling=loop.get("async_scheduling", True))
    if not loop.get("enforce_eager"):
        _run_in_graphs(engine)
    return llm


def _run_in_graphs(engine: Engine) -> None:
    """In place of the runner of a CPU one that runs steps as on a GPU."""
    config, decoder = engine.config, engine._runner.decoder
    memory = allocate_kv_cache(config, engine.spec)
    graphs = DecodeGraphs(decoder, memory, config.max_num_seqs, config.max_model_len, not_captured)
    engine._runner = Runner(decoder, memory, config.block_size, graphs)


def _greedy(make: Callable[[], LLM], truth: Callable[[], Truth]) -> Row:
    """All prompts in one batch."""
    llm, known = make(), truth()
    tokens = len(known.answers[0].ids)
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    outputs = llm.generate(known.prompts, params, use_tqdm=False)
    found = [list(output.outputs[0].token_ids) for output in outputs]
    pairs = zip(known.answers, found, strict=True)
    wrong = [_difference(answer, ids, known.bound, whole=True) for answer, ids in pairs]
    return _row(wrong, tokens * len(found), llm.engine)


def _random_steps(dry: bool, make: Callable[[], LLM], truth: Callable[[], Truth]) -> Row:
    """Requests come and go at random; what each has said is the beginning of what the truth says."""
    engine, known, source = make().engine, truth(), random.Random(0)
    asked: dict[str, Answer] = {}
    said: dict[str, list[int]] = {}
    open_requests: set[str] = set()
    whole: set[str] = set()
    wrong: list[str] = []
    for _ in range(DRY_STEPS if dry else STEPS):
        while len(open_requests) < (DRY_MOST_OPEN if dry else MOST_OPEN) and (
            not open_requests or source.random() < 0.4
        ):
            prompt, answer = source.choice(list(zip(known.prompts, known.answers, strict=True)))
            params, expected = _params(source, answer)
            request_id = engine.add(prompt, params)
            asked[request_id], said[request_id] = expected, []
            open_requests.add(request_id)
        if source.random() < ABORTED:
            engine.abort(source.choice(sorted(open_requests)))
        for event in engine.step():
            said[event.request_id] += event.token_ids
            if event.error is not None:
                wrong.append(event.error)
            if event.finish_reason is not None:
                open_requests.discard(event.request_id)
            if event.finish_reason in ("stop", "length"):
                whole.add(event.request_id)
    for request_id, ids in said.items():
        wrong.append(_difference(asked[request_id], ids, known.bound, whole=request_id in whole))
    for request_id in open_requests:
        engine.abort(request_id)
    while engine.has_work:
        engine.step()
    if engine.stats().kv_usage:
        wrong.append("blocks are left behind")
    return _row(wrong, sum(map(len, said.values())), engine)


def _params(source: random.Random, answer: Answer) -> tuple[SamplingParams, Answer]:
    """It may end by length, or by an id that the answer has; and what is left of the answer then."""
    stop = (source.choice(answer.ids),) if source.random() < 0.3 else ()
    count = source.randint(1, len(answer.ids))
    length = next((n for n, token_id in enumerate(answer.ids[:count], 1) if token_id in stop), count)
    params = SamplingParams(temperature=0, max_tokens=count, stop_token_ids=stop, ignore_eos=True)
    return params, Answer(answer.ids[:length], answer.likely[:length])


def _difference(truth: Answer, ids: list[int], bound: float, *, whole: bool) -> str:
    """How ids differ from the truth, or nothing; where it has two tokens within `bound`, both are right."""
    for place, (wanted, token_id) in enumerate(zip(truth.ids, ids, strict=False)):
        if token_id != wanted:
            margin = truth.likely[place][wanted] - truth.likely[place].get(token_id, float("-inf"))
            if margin <= bound:
                return ""  # from here on both have seen other tokens
            return f"token {place} is {token_id}, the truth has {wanted} by a margin of {margin:.4f}"
    if len(ids) > len(truth.ids) or (whole and len(ids) < len(truth.ids)):
        return f"{len(ids)} tokens, the truth has {len(truth.ids)}"
    return ""


def _row(wrong: list[str], tokens: int, engine: Any) -> Row:
    told = [text for text in wrong if text]
    return {
        "kind": "check",
        "correct": not told and tokens > 0,
        "note": "; ".join(told),
        "tokens": tokens,
        "steps": engine.stats().num_steps,
    }
