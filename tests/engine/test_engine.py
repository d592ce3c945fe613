"""Requests, choices, stop conditions and failures, through the engine's own interface."""

import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmcli import LLM, SamplingParams
from llmcli.engine.engine import Engine
from llmcli.engine.stream import EngineThread
from llmcli.errors import EngineError, RequestError
from llmcli.outputs import TokenEvent
from tests.tiny_models import tiny_chat_model

PROMPT = list(b"hello there")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def llm(folder: Path) -> LLM:
    return LLM(folder, dtype="float32", num_threads=1)


@pytest.fixture
def engine(llm: LLM) -> Engine:
    return llm.engine


def run(engine: Engine) -> list[TokenEvent]:
    events = []
    while engine.has_work:
        events += engine.step()
    return events


def test_events_of_a_request_add_up_to_its_output(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True)
    (whole,) = llm.generate([PROMPT], params, use_tqdm=False)
    llm.engine.add(PROMPT, params)
    events = run(llm.engine)
    assert [i for event in events for i in event.token_ids] == whole.outputs[0].token_ids
    assert "".join(event.text for event in events) == whole.outputs[0].text
    assert [event.finish_reason for event in events] == [None] * 8 + ["length"]
    stats = events[-1].stats
    assert stats is not None
    assert (stats.num_prompt_tokens, stats.num_output_tokens) == (len(PROMPT), 9)
    assert 0 <= stats.queue_s <= stats.ttft_s <= stats.total_s


def test_a_request_that_comes_later_joins_at_the_next_step(engine: Engine) -> None:
    params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    first = engine.add(PROMPT, params)
    engine.step()
    second = engine.add(PROMPT[:4], params)
    assert {event.request_id for event in engine.step()} == {first, second}


def test_a_stop_id_ends_the_output_and_stays_out_of_its_text(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    (free,) = llm.generate([PROMPT], params, use_tqdm=False)
    stop_id = free.outputs[0].token_ids[5]
    first = free.outputs[0].token_ids.index(stop_id)
    (stopped,) = llm.generate([PROMPT], params.replace(stop_token_ids=(stop_id,)), use_tqdm=False)
    choice = stopped.outputs[0]
    assert (choice.finish_reason, choice.stop_reason) == ("stop", stop_id)
    assert choice.token_ids == free.outputs[0].token_ids[: first + 1]
    assert choice.text == llm.get_tokenizer().decode(choice.token_ids[:-1])


def test_min_tokens_keeps_a_stop_id_from_being_drawn(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    (free,) = llm.generate([PROMPT], params, use_tqdm=False)
    stop_id = free.outputs[0].token_ids[0]
    (kept,) = llm.generate([PROMPT], params.replace(stop_token_ids=(stop_id,), min_tokens=6), use_tqdm=False)
    assert stop_id not in kept.outputs[0].token_ids[:6]
    assert len(kept.outputs[0].token_ids) >= 6


def test_a_stop_string_cuts_the_text_before_it(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    (free,) = llm.generate([PROMPT], params, use_tqdm=False)
    text = free.outputs[0].text
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    (stopped,) = llm.generate([PROMPT], params.replace(stop=(stop,)), use_tqdm=False)
    assert stopped.outputs[0].text == text[: text.index(stop)]
    assert (stopped.outputs[0].finish_reason, stopped.outputs[0].stop_reason) == ("stop", stop)
    assert llm.engine.stats().kv_usage == 0


def test_logit_bias_and_bans_choose_the_token(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, logit_bias={77: 100})
    (output,) = llm.generate([PROMPT], params, use_tqdm=False)
    assert output.outputs[0].token_ids == [77] * 4


def test_penalties_keep_a_token_from_coming_back(llm: LLM) -> None:
    base = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    for name in ("presence_penalty", "frequency_penalty"):
        (plain,) = llm.generate([PROMPT], base.replace(logit_bias={77: 20.0}), use_tqdm=False)
        (output,) = llm.generate([PROMPT], base.replace(logit_bias={77: 20.0}, **{name: 2.0}), use_tqdm=False)
        assert output.outputs[0].token_ids.count(77) <= plain.outputs[0].token_ids.count(77)
    (repeat,) = llm.generate([PROMPT], base.replace(repetition_penalty=10.0), use_tqdm=False)
    assert len(set(repeat.outputs[0].token_ids)) == 24


def test_an_aborted_request_ends_with_one_abort_event_and_frees_its_blocks(engine: Engine) -> None:
    params = SamplingParams(temperature=0, max_tokens=50, ignore_eos=True, n=2)
    request_id = engine.add(PROMPT, params)
    other = engine.add(PROMPT[:3], SamplingParams(temperature=0, max_tokens=5, ignore_eos=True))
    engine.step()
    engine.abort(request_id)
    engine.abort(request_id)
    events = run(engine)
    ended = [(e.request_id, e.index, e.finish_reason) for e in events if e.finish_reason is not None]
    assert sorted(ended) == sorted([(request_id, 0, "abort"), (request_id, 1, "abort"), (other, 0, "length")])
    assert engine.stats().kv_usage == 0


BAD_REQUESTS: list[tuple[list[Any], dict[str, Any], str]] = [
    ([], {}, "no tokens"),
    ([1, 300], {}, "300 at index 1 is not in 0..299"),
    ([1, -1], {}, "-1 at index 1"),
    ([1, True], {}, "True at index 1"),
    ([1, 2.0], {}, "2.0 at index 1"),
    ([1] * 128, {}, "128 tokens"),
    ([1], {"stop_token_ids": (300,)}, "stop_token_ids: token id 300"),
    ([1], {"logit_bias": {300: 1.0}}, "logit_bias: token id 300"),
]


@pytest.mark.parametrize(("prompt", "fields", "message"), BAD_REQUESTS)
def test_a_request_that_can_not_be_served_is_refused(
    engine: Engine, prompt: list[Any], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        engine.add(prompt, SamplingParams(**fields))
    assert not engine.has_work


def test_a_request_larger_than_the_pool_is_refused_with_both_numbers(folder: Path) -> None:
    small = LLM(folder, dtype="float32", num_threads=1)
    config = small.engine.config
    llm = LLM(
        folder,
        dtype="float32",
        num_threads=1,
        max_model_len=64,
        kv_cache_memory=config.kv_bytes_per_token * 16 * 5,
    )
    llm.engine.check([1] * 60, SamplingParams())
    with pytest.raises(RequestError, match="64"):
        llm.engine.add([1] * 64, SamplingParams())


def test_a_numerical_fault_fails_its_own_request_only(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    (expected,) = llm.generate([PROMPT], params, use_tqdm=False)
    llm.engine._runner.decoder.weights.embedding[250] = float("nan")
    bad = llm.engine.add([5, 250, 7], params)
    good = llm.engine.add(PROMPT, params)
    events = run(llm.engine)
    errors = [event for event in events if event.finish_reason == "error"]
    assert [event.request_id for event in errors] == [bad]
    assert "not finite" in str(errors[0].error)
    assert [i for e in events if e.request_id == good for i in e.token_ids] == expected.outputs[0].token_ids


def test_a_failing_forward_pass_ends_every_request_and_the_engine(engine: Engine) -> None:
    class Broken:
        def begin(self, _: object) -> object:
            raise RuntimeError("the device is gone")

    requests = {engine.add(PROMPT, SamplingParams(max_tokens=5)) for _ in range(3)}
    engine._runner = Broken()  # type: ignore[assignment]
    events = run(engine)
    assert {event.request_id for event in events} == requests
    assert all(event.finish_reason == "error" and "device is gone" in str(event.error) for event in events)
    with pytest.raises(EngineError, match="device is gone"):
        engine.add(PROMPT, SamplingParams())


def test_an_interrupted_step_is_computed_again(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    (expected,) = llm.generate([PROMPT], params, use_tqdm=False)
    engine = llm.engine
    runner = engine._runner

    class Interrupted:
        def begin(self, _: object) -> object:
            raise KeyboardInterrupt

    engine.add(PROMPT, params)
    events = engine.step()
    engine._runner = Interrupted()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    engine._runner = runner
    events += run(engine)
    assert [i for e in events for i in e.token_ids] == expected.outputs[0].token_ids


def test_streams_of_the_worker_thread_carry_the_same_tokens(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, n=2)
    expected = [c.token_ids for c in llm.generate([PROMPT], params, use_tqdm=False)[0].outputs]
    thread = EngineThread(llm.engine)
    streams = [thread.submit(PROMPT, params) for _ in range(3)]
    for stream in streams:
        events = list(stream)
        for choice in range(2):
            assert [i for e in events if e.index == choice for i in e.token_ids] == expected[choice]
    thread.close()
    with pytest.raises(EngineError, match="closed"):
        thread.submit(PROMPT, params)


def test_an_aborted_stream_and_a_closed_thread_end_every_stream_once(llm: LLM) -> None:
    thread = EngineThread(llm.engine)
    params = SamplingParams(max_tokens=100, ignore_eos=True)
    first, second = thread.submit(PROMPT, params), thread.submit(PROMPT, params)
    next(iter(first))
    first.abort()
    assert [e.finish_reason for e in first][-1] == "abort"
    thread.close()
    assert [e.finish_reason for e in second if e.finish_reason] == ["abort"]


def test_the_worker_thread_does_other_work_between_its_steps_and_survives_what_that_raises(llm: LLM) -> None:
    thread = EngineThread(llm.engine)
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    expected = list(thread.submit(PROMPT, params))
    name = thread.run(lambda engine: (engine is llm.engine, threading.current_thread().name))
    assert name == (True, "llmcli-engine")
    with pytest.raises(ZeroDivisionError):
        thread.run(lambda engine: 1 / 0)
    again = list(thread.submit(PROMPT, params))
    assert [e.token_ids for e in again] == [e.token_ids for e in expected]
    thread.close()
    with pytest.raises(EngineError, match="closed"):
        thread.run(lambda engine: None)


def test_work_that_waits_when_the_engine_dies_is_told(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    thread = EngineThread(llm.engine)
    stepping, waiting = threading.Event(), threading.Event()

    def die() -> list[TokenEvent]:
        stepping.set()
        assert waiting.wait(10)
        raise SystemError("broken")

    monkeypatch.setattr(llm.engine, "step", die)
    stream = thread.submit(PROMPT, SamplingParams(max_tokens=4))
    assert stepping.wait(10)
    put = thread._commands.put
    monkeypatch.setattr(thread, "_commands", SimpleNamespace(put=lambda work: (put(work), waiting.set())))
    with pytest.raises(EngineError, match="broken"):
        thread.run(lambda engine: None)
    assert [event.finish_reason for event in stream] == ["error"]


def test_a_request_that_meets_a_closing_thread_is_refused_or_ends(llm: LLM) -> None:
    thread = EngineThread(llm.engine)
    check = llm.engine.check

    def closed_meanwhile(ids: Sequence[int], params: SamplingParams) -> None:
        check(ids, params)
        thread.close()

    llm.engine.check = closed_meanwhile  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="closed"):
        thread.submit(PROMPT, SamplingParams())


def test_a_worker_that_dies_ends_the_streams_it_has_not_begun(llm: LLM) -> None:
    thread = EngineThread(llm.engine)
    ready, go = threading.Event(), threading.Event()

    def die() -> None:
        ready.set()
        go.wait()
        raise MemoryError("no more")

    thread._commands.put(die)
    ready.wait()
    stream = thread.submit(PROMPT, SamplingParams(n=2))
    go.set()
    events = list(stream)
    assert [(e.index, e.finish_reason) for e in events] == [(0, "error"), (1, "error")]
    assert all("MemoryError: no more" in str(e.error) for e in events)
    with pytest.raises(EngineError, match="no more"):
        thread.submit(PROMPT, SamplingParams())
