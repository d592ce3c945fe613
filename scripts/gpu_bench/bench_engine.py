"""Whole models through the engine: tokens a second, first tokens, and how long the GPU has nothing to do.

Owns the loads and what is told of them. The models have random weights, made by `random_engine.py`. A float16 engine
and transformers' generate run first, in the same process, so that the 4-bit engine's figures are ratios within one
run. In a dry run everything is tiny, and no time means anything.
"""

import gc
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import torch

from llmcli.engine.engine import Engine
from llmcli.sampling import SamplingParams
from llmcli_kernels import KernelSet, select
from scripts.gpu_bench.engine_targets import (
    CACHED_FIRST_TOKEN,
    IDLE_US,
    TOKENS_PER_S,
    VS_FLOAT16_ENGINE,
    VS_ONE_AT_A_TIME,
    VS_TRANSFORMERS,
)
from scripts.gpu_bench.random_engine import Room, config_of, random_engine
from scripts.gpu_bench.session import Row, Session

# (sequences, tokens of context)
DECODES = ((1, 512), (1, 8000), (8, 1024), (32, 1024), (64, 1024), (256, 512))
FLOAT16_DECODES = ((1, 512), (64, 1024))
PROMPTS = (512, 2048, 8192)
DRY_DECODES, DRY_PROMPTS = ((1, 20), (3, 20)), (40,)
SETTLED, MEASURED = 10, 100  # steps
REPEATS = 3
LOOPS: dict[str, dict[str, bool]] = {
    "": {},
    "one at a time": {"async_scheduling": False},
    "eager": {"enforce_eager": True},
}


@dataclass
class Known:
    """Rates of this process, by case, that later ones are held against."""

    rates: dict[tuple[str, int, int], float] = field(default_factory=dict)


def run(session: Session, name: str) -> None:
    kernels = select("cuda", "triton")
    known = Known()
    with torch.inference_mode():
        _transformers(session, name, known)
        _float16(session, name, kernels, known)
        for loop, options in LOOPS.items():
            engine = _engine(session, name, kernels, int4=True, options=options)
            decodes = _decodes(session) if not loop else _decodes(session)[:1]
            for batch, context in decodes:
                work = partial(_decode, session, engine, name, batch, context, known, loop)
                session.case(f"{name} int4 decode {batch} x {context}{loop and f', {loop}'}", work)
            session.case(
                f"{name} int4 idle{loop and f', {loop}'}", partial(_idle, session, engine, name, loop)
            )
            if not loop:
                _prompts(session, engine, name, known, "int4")
                session.case(f"{name} int4 cached prefix", partial(_cached_prefix, session, engine, name))
                session.case(f"{name} int4 mixed load", partial(_mixed, session, engine, name))
            del engine
            _free()


def _decodes(session: Session) -> Sequence[tuple[int, int]]:
    return DRY_DECODES if session.dry else DECODES


def _engine(
    session: Session, name: str, kernels: KernelSet, *, int4: bool, options: dict[str, bool]
) -> Engine:
    if session.dry:
        room = Room(sequences=4, length=128, tokens=512, budget=32)
        return random_engine(name, kernels, room, int4=int4, dry=True, **options)
    config = config_of(name, False)
    per_token = 4 * config["num_hidden_layers"] * config["num_key_value_heads"] * 128
    weights = 18e9
    tokens = int(min((torch.cuda.mem_get_info()[0] - weights) * 0.7 / per_token, 256 * 1024))
    room = Room(sequences=256, length=8400, tokens=tokens, budget=8192)
    return random_engine(name, kernels, room, int4=int4, dry=False, **options)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _transformers(session: Session, name: str, known: Known) -> None:
    """Its generate, one sequence, greedy, in float16."""

    def work() -> Row:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = {key: value for key, value in config_of(name, session.dry).items() if key != "torch_dtype"}
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32 if session.dry else torch.float16)
        try:
            with torch.device(session.device):
                model: Any = LlamaForCausalLM(LlamaConfig(**config)).eval()
        finally:
            torch.set_default_dtype(default)
        model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
        _, context = _decodes(session)[0]
        prompt = torch.randint(3, 299, (1, context), device=session.device)

        def seconds(count: int) -> float:
            started = time.perf_counter()
            model.generate(prompt, max_new_tokens=count, min_new_tokens=count, do_sample=False)
            _wait()
            return time.perf_counter() - started

        count = 3 if session.dry else 64
        seconds(2)
        rates = [(count - 1) / (seconds(count) - seconds(1)) for _ in range(REPEATS)]
        known.rates["transformers", 1, context] = median(rates)
        return _row(f"{name} transformers", rates, {"batch": 1, "context": context}, {})

    session.case(f"{name} transformers generate", work)
    _free()


def _float16(session: Session, name: str, kernels: KernelSet, known: Known) -> None:
    engine = _engine(session, name, kernels, int4=False, options={})
    for batch, context in DRY_DECODES[:1] if session.dry else FLOAT16_DECODES:
        work = partial(_decode, session, engine, name, batch, context, known, "", kind="float16")
        session.case(f"{name} float16 decode {batch} x {context}", work)
    _prompts(session, engine, name, known, "float16")
    del engine
    _free()


def _decode(
    session: Session,
    engine: Engine,
    name: str,
    batch: int,
    context: int,
    known: Known,
    loop: str,
    kind: str = "int4",
) -> Row:
    """Tokens a second of all sequences together, once all of them decode."""
    if batch * (context + SETTLED + MEASURED) > engine.config.kv_tokens:
        return {"kind": "skipped", "why": "the KV cache has no room for it"}
    rates = [_decode_rate(session, engine, batch, context) for _ in range(1 if session.dry else REPEATS)]
    rate = median(rates)
    known.rates[kind + loop, batch, context] = rate
    figures = {}
    if kind == "int4":
        against = {VS_FLOAT16_ENGINE: "float16", VS_TRANSFORMERS: "transformers"}
        figures = {
            figure: rate / known.rates[other, batch, context]
            for figure, other in against.items()
            if (other, batch, context) in known.rates and not loop
        }
        if loop and ("int4", batch, context) in known.rates:
            figures[VS_ONE_AT_A_TIME] = known.rates["int4", batch, context] / rate
    operation = f"{name} {kind} decode{loop and f', {loop}'}"
    return _row(operation, rates, {"batch": batch, "context": context}, figures)


def _decode_rate(session: Session, engine: Engine, batch: int, context: int) -> float:
    settled, measured = (1, 2) if session.dry else (SETTLED, MEASURED)
    _start_all(engine, batch, context, batch + settled + measured + 64)
    for _ in range(settled):
        engine.step()
    started = time.perf_counter()
    tokens = sum(len(event.token_ids) for _ in range(measured) for event in engine.step())
    seconds = time.perf_counter() - started
    _end_all(engine)
    return tokens / seconds


def _start_all(engine: Engine, batch: int, context: int, count: int) -> None:
    """Sequences with different prompts, until each has drawn a token."""
    engine.reset_prefix_cache()
    params = SamplingParams(
        temperature=0, max_tokens=min(count, engine.config.max_model_len - context), ignore_eos=True
    )
    waiting = {engine.add(_prompt(engine, context), params) for _ in range(batch)}
    while waiting:
        for event in engine.step():
            if event.error is not None:
                raise RuntimeError(event.error)
            waiting.discard(event.request_id)


def _end_all(engine: Engine) -> None:
    engine.close()
    while engine.has_work:
        engine.step()


def _prompt(engine: Engine, count: int) -> list[int]:
    source = random.Random(random.randrange(1 << 30))
    return [source.randrange(3, engine.spec.vocab_size) for _ in range(count)]


def _prompts(session: Session, engine: Engine, name: str, known: Known, kind: str) -> None:
    for count in DRY_PROMPTS if session.dry else PROMPTS:
        work = partial(_prompt_rate, session, engine, name, count, known, kind)
        session.case(f"{name} {kind} prompt {count}", work)


def _prompt_rate(session: Session, engine: Engine, name: str, count: int, known: Known, kind: str) -> Row:
    rates = [
        count / _first_token_s(engine, _prompt(engine, count)) for _ in range(1 if session.dry else REPEATS)
    ]
    known.rates[f"{kind} prompt", 1, count] = median(rates)
    figures = {}
    if kind == "int4" and ("float16 prompt", 1, count) in known.rates:
        figures[VS_FLOAT16_ENGINE] = median(rates) / known.rates["float16 prompt", 1, count]
    return _row(f"{name} {kind} prompt", rates, {"tokens": count}, figures)


def _first_token_s(engine: Engine, prompt: list[int]) -> float:
    started = time.perf_counter()
    engine.add(prompt, SamplingParams(temperature=0, max_tokens=1, ignore_eos=True))
    while engine.has_work:
        for event in engine.step():
            if event.error is not None:
                raise RuntimeError(event.error)
    return time.perf_counter() - started


def _cached_prefix(session: Session, engine: Engine, name: str) -> Row:
    """The first token of a prompt that is known but for its end, against that of a new one."""
    count = 40 if session.dry else 4096
    shares = []
    for _ in range(1 if session.dry else REPEATS):
        engine.reset_prefix_cache()
        prompt = _prompt(engine, count)
        cold = _first_token_s(engine, prompt)
        cached = _first_token_s(engine, [*prompt[:-8], *_prompt(engine, 8)])
        shares.append(cached / cold)
    figures = {CACHED_FIRST_TOKEN: median(shares)}
    return _row(f"{name} int4 cached prefix", [1 / share for share in shares], {"tokens": count}, figures)


def _mixed(session: Session, engine: Engine, name: str) -> Row:
    """Requests of all lengths that come while others run; half of their prompts share a beginning."""
    engine.reset_prefix_cache()
    source = random.Random(0)
    count, longest = (3, 20) if session.dry else (256, 1024)
    shared = _prompt(engine, longest // 2)
    requests = []
    for number in range(count):
        own = _prompt(engine, source.randint(longest // 8, longest // 2))
        tokens = 2 if session.dry else source.randint(32, 256)
        prompt = shared + own if number % 2 else own
        requests.append(
            (prompt, SamplingParams(temperature=0.8, seed=number, max_tokens=tokens, ignore_eos=True))
        )
    started, tokens_out = time.perf_counter(), 0
    first = 1 + count // 4
    waiting = iter(requests[first:])
    for request in requests[:first]:
        engine.add(*request)
    while engine.has_work:
        following = next(waiting, None)
        if following is not None:
            engine.add(*following)
        for event in engine.step():
            if event.error is not None:
                raise RuntimeError(event.error)
            tokens_out += len(event.token_ids)
    return _row(
        f"{name} int4 mixed load", [tokens_out / (time.perf_counter() - started)], {"requests": count}, {}
    )


def _idle(session: Session, engine: Engine, name: str, loop: str) -> Row:
    """Between the last kernel of a step and the first of the next one, at batch 1: median over the steps."""
    _, context = _decodes(session)[0]
    steps = 2 if session.dry else 50
    _start_all(engine, 1, context, 2 * steps)
    if session.dry:
        gaps, busy = [0.0], [0.0]
        for _ in range(steps):
            engine.step()
    else:
        gaps, busy = _gaps(engine, steps)
    _end_all(engine)
    timing = {"median_us": median(gaps), "min_us": min(gaps), "max_us": max(gaps), "repeats": steps}
    return {
        "kind": "benchmark",
        "operation": f"{name} int4 idle{loop and f', {loop}'}",
        "sizes": {"batch": 1, "context": context},
        "time": timing | {"how": "dry run" if session.dry else "profile"},
        "figures": {IDLE_US: median(gaps), "µs idle in a step in all": median(busy)},
    }


def _gaps(engine: Engine, steps: int) -> tuple[list[float], list[float]]:
    """Microseconds: the largest gap of each step, which is the one before it begins; and all its gaps together."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(steps):
            engine.step()
        _wait()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiled.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    gaps = []
    done = spans[0][1]
    for start, end in spans[1:]:
        gaps.append(max(0.0, start - done))
        done = max(done, end)
    largest = sorted(gaps)[-steps + 2 :]
    return largest, [sum(gaps) / steps]


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _row(operation: str, rates: list[float], sizes: dict[str, Any], figures: dict[str, float]) -> Row:
    """Rates are per second; the time is that of one token."""
    times = sorted(1e6 / rate for rate in rates)
    dry = not torch.cuda.is_initialized()
    return {
        "kind": "benchmark",
        "operation": operation,
        "sizes": sizes,
        "time": {
            "median_us": round(median(times), 3),
            "min_us": round(times[0], 3),
            "max_us": round(times[-1], 3),
            "repeats": len(times),
            "how": "dry run" if dry else "wall clock",
        },
        "figures": {TOKENS_PER_S: median(rates), **figures},
    }
