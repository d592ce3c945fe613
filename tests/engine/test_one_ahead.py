"""Steps that are started before the one before has told what it drew: the same events, whatever ends a request."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from llmcli import LLM, SamplingParams, StructuredOutput
from llmcli.engine.engine import Engine
from llmcli.outputs import TokenEvent
from llmcli.runtime.runner import Draw, Wait
from llmcli.scheduler.step import Step, StepResult
from tests.tiny_models import tiny_chat_model

PROMPT = list(b"hello there")
GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
DRAWN = SamplingParams(temperature=1.2, top_p=0.9, seed=5, max_tokens=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("model"))


def make(folder: Path, *, ahead: bool = True, **options: Any) -> Engine:
    engine = LLM(folder, **{"dtype": "float32", "num_threads": 1, **options}).engine
    engine.config = replace(engine.config, async_scheduling=ahead)
    return engine


Key = tuple[str, int]


@dataclass
class Told:
    """What the events of each choice add up to."""

    text: dict[Key, str] = field(default_factory=dict)
    ids: dict[Key, list[int]] = field(default_factory=dict)
    ends: dict[Key, tuple[Any, ...]] = field(default_factory=dict)
    logprobs: dict[Key, list[Any]] = field(default_factory=dict)

    def take(self, event: TokenEvent) -> None:
        key = event.request_id, event.index
        assert key not in self.ends, "an event comes after the last one"
        self.text[key] = self.text.get(key, "") + event.text
        self.ids.setdefault(key, []).extend(event.token_ids)
        self.logprobs.setdefault(key, []).extend(event.logprobs or ())
        if event.finish_reason is not None:
            self.ends[key] = (event.finish_reason, event.stop_reason, event.error)


def run(engine: Engine, on_event: Callable[[TokenEvent], None] = lambda event: None) -> Told:
    told = Told()
    drain(engine, told, on_event)
    assert engine.stats().kv_usage == 0
    return told


def drain(engine: Engine, told: Told, on_event: Callable[[TokenEvent], None] = lambda event: None) -> None:
    while engine.has_work:
        for event in engine.step():
            told.take(event)
            on_event(event)


def mixed_requests(engine: Engine) -> dict[str, tuple[list[int], SamplingParams]]:
    """One of each kind that could make a difference."""
    (free,) = run_one(engine, PROMPT, GREEDY).ids.values()
    text = engine.tokenizer.decode(free)
    return {
        "free": (PROMPT, GREEDY),
        "drawn": (PROMPT[:5], DRAWN),
        "long prompt": (PROMPT * 5, DRAWN),
        "stop id": (PROMPT, GREEDY.replace(stop_token_ids=(free[7],))),
        "kept from stopping": (PROMPT, GREEDY.replace(stop_token_ids=(free[0],), min_tokens=6)),
        "stop string": (PROMPT, GREEDY.replace(stop=(text[len(text) // 2 :][:3],))),
        "one token": (PROMPT, GREEDY.replace(max_tokens=1)),
        "penalties": (PROMPT[2:], GREEDY.replace(repetition_penalty=1.4, frequency_penalty=0.5)),
        "drawn with penalties": (
            PROMPT[4:],
            DRAWN.replace(repetition_penalty=1.1, presence_penalty=0.3, n=2),
        ),
        "choices": (PROMPT[3:], DRAWN.replace(n=3)),
        "logprobs": (PROMPT, DRAWN.replace(logprobs=3)),
        "bias": (PROMPT, GREEDY.replace(logit_bias={77: 4.0})),
        "form": (PROMPT[1:], DRAWN.replace(structured=StructuredOutput.regex("[a-f]{4,9}[0-9]{6}"))),
    }


def run_one(engine: Engine, prompt: list[int], params: SamplingParams) -> Told:
    engine.add(prompt, params)
    return run(engine)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"max_num_batched_tokens": 7, "block_size": 4},
    {"max_num_seqs": 3, "enable_prefix_caching": False},
]


@pytest.mark.parametrize("form", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_request_tells_what_it_tells_one_step_at_a_time(
    folder: Path, options: dict[str, Any], form: bool
) -> None:
    told = []
    for ahead in (False, True):
        engine = make(folder, ahead=ahead, **options)
        requests = mixed_requests(engine)
        if not form:
            del requests["form"]
        names = iter(requests)

        def add_next(
            event: TokenEvent, engine: Engine = engine, requests: Any = requests, names: Any = names
        ) -> None:
            """Two more requests whenever one has ended, so that they join in the middle."""
            for name in (next(names, None), next(names, None)) if event.finish_reason else ():
                if name is not None:
                    engine.add(*requests[name], request_id=name)

        for _ in range(4):
            first = next(names)
            engine.add(*requests[first], request_id=first)
        told.append(run(engine, add_next))
    assert told[0].ids == told[1].ids
    assert told[0] == told[1]
    assert len(told[0].ends) == sum(params.n for _, params in requests.values())


def test_preempted_requests_give_the_same(folder: Path) -> None:
    prompts = [PROMPT, PROMPT[3:], PROMPT[:7], PROMPT * 2]
    per_token = make(folder).config.kv_bytes_per_token
    told = []
    for ahead in (False, True):
        engine = make(folder, ahead=ahead, block_size=4, max_model_len=64, kv_cache_memory=per_token * 4 * 18)
        for number, prompt in enumerate(prompts):
            engine.add(prompt, GREEDY, request_id=str(number))
        told.append(run(engine))
        assert engine.stats().num_preemptions > 0
    assert told[0] == told[1]


@dataclass
class Watched:
    """The real runner, and in which order steps are started and waited for; one of these calls may fail."""

    runner: Any
    fails_at: int | None = None
    error: BaseException = field(default_factory=KeyboardInterrupt)
    calls: list[str] = field(default_factory=list)
    num_started: int = 0

    def begin(self, step: Step) -> Draw:
        number = self.num_started
        self.num_started += 1
        self._call(f"start {number}")
        draw: Draw = self.runner.begin(step)

        def watched_draw(step: Step) -> Wait:
            self._call(f"draw {number}")
            wait = draw(step)

            def watched() -> StepResult:
                self._call(f"wait {number}")
                return wait()

            return watched

        return watched_draw

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) == self.fails_at:
            raise self.error


def test_a_step_is_started_before_the_one_before_is_waited_for(folder: Path) -> None:
    engine = make(folder)
    engine._runner = runner = Watched(engine._runner)  # type: ignore[assignment]
    run_one(engine, PROMPT, GREEDY.replace(max_tokens=3))
    assert " ".join(runner.calls) == "start 0 draw 0 start 1 draw 1 wait 0 start 2 draw 2 wait 1 wait 2"


def test_a_step_with_a_form_is_computed_while_the_one_before_tells_what_it_has_drawn(folder: Path) -> None:
    engine = make(folder)
    engine._runner = runner = Watched(engine._runner)  # type: ignore[assignment]
    engine.add(PROMPT, GREEDY.replace(max_tokens=3))
    run_one(engine, PROMPT, DRAWN.replace(max_tokens=3, structured=StructuredOutput.regex("[a-z]{9}")))
    assert " ".join(runner.calls) == "start 0 draw 0 start 1 wait 0 draw 1 start 2 wait 1 draw 2 wait 2"


def test_one_step_at_a_time_waits_before_it_starts_the_next(folder: Path) -> None:
    engine = make(folder, ahead=False)
    engine._runner = runner = Watched(engine._runner)  # type: ignore[assignment]
    run_one(engine, PROMPT, GREEDY.replace(max_tokens=2))
    assert " ".join(runner.calls) == "start 0 draw 0 wait 0 start 1 draw 1 wait 1"


@pytest.mark.parametrize("at", range(1, 19))
def test_an_interrupt_at_any_call_loses_no_token(folder: Path, at: int) -> None:
    engine = make(folder, max_num_batched_tokens=7)
    expected = run_one(engine, PROMPT, GREEDY.replace(max_tokens=6))
    runner = engine._runner
    engine._runner = Watched(runner, at)  # type: ignore[assignment]
    request_id = engine.add(PROMPT, GREEDY.replace(max_tokens=6))
    told = Told()
    with pytest.raises(KeyboardInterrupt):
        drain(engine, told)
    engine._runner = runner
    drain(engine, told)
    (ids,) = expected.ids.values()
    assert told.ids[request_id, 0] == ids
    assert engine.stats().kv_usage == 0


@pytest.mark.parametrize("at", range(1, 12))
def test_a_runner_that_fails_at_any_call_ends_every_request_once(folder: Path, at: int) -> None:
    engine = make(folder)
    engine._runner = Watched(engine._runner, at, RuntimeError("gone"))  # type: ignore[assignment]
    for _ in range(3):
        engine.add(PROMPT, GREEDY)
    told = run(engine)
    assert [(end[0], "gone" in end[2]) for end in told.ends.values()] == [("error", True)] * 3


def test_an_abort_between_steps_drops_what_is_in_flight(folder: Path) -> None:
    engine = make(folder)
    aborted, other = engine.add(PROMPT, GREEDY.replace(n=2)), engine.add(PROMPT[2:], GREEDY)
    told = Told()
    for _ in range(3):
        for event in engine.step():
            told.take(event)
    before = list(told.ids[aborted, 0])
    engine.abort(aborted)
    drain(engine, told)
    assert told.ids[aborted, 0] == before
    assert {key: end[0] for key, end in told.ends.items()} == {
        (aborted, 0): "abort",
        (aborted, 1): "abort",
        (other, 0): "length",
    }
    assert engine.stats().kv_usage == 0


def test_when_the_last_request_ends_nothing_is_left_in_flight(folder: Path) -> None:
    engine = make(folder)
    free = run_one(engine, PROMPT, GREEDY)
    (ids,) = free.ids.values()
    told = run_one(engine, PROMPT, GREEDY.replace(stop_token_ids=(ids[3],)))
    assert [end[0] for end in told.ends.values()] == ["stop"]
    assert not engine._in_flight
    assert engine.reset_prefix_cache()
