"""Requests to a server: what is sent and when, how its stream is timed, and every way in which it can fail."""

import asyncio
import itertools
import math
import signal
import socket
import threading
from typing import Any

import numpy as np
import pytest

from llmcli.errors import ServerError, UsageError
from llmcli.jobs.bench.client import Target, body_of, open_client, send
from llmcli.jobs.bench.serve import Arrivals, ServeRun, send_times
from llmcli.jobs.bench.serve_metrics import Outcome
from llmcli.jobs.bench.workload import Work
from tests.sse_server import DONE, Script, completion, serving

WORK = Work("text", "hello there", 3, 2)


def ask(target: Target, work: Work = WORK) -> Outcome:
    """One request, on a clock that goes on by a second whenever it is read."""
    seconds = itertools.count()

    async def once() -> Outcome:
        async with open_client(target) as client:
            return await send(client, target, work, clock=lambda: float(next(seconds)))

    return asyncio.run(once())


def target_of(script: Script, **more: Any) -> Target:
    return Target(**{"base_url": script.base_url, "model": "m"} | more)


def run(script: Script, num_works: int = 4, **more: Any) -> ServeRun:
    options = {"model": None} | more.pop("target", {})
    serve = ServeRun(target_of(script, **options), [WORK] * num_works, Arrivals(**more))
    serve.run(lambda _: None, lambda _: None)
    return serve


def test_a_stream_is_timed_event_by_event() -> None:
    with serving(Script()) as script:
        outcome = ask(target_of(script))
    # sent at 0; events with a choice are read at 1, 2, 3; the usage at 4 is no token
    assert outcome == Outcome(
        started_at=0.0, num_prompt=5, num_output=3, ttft_s=1.0, latency_s=3.0, itl_s=(1.0, 1.0)
    )
    assert outcome.tpot_s == 1.0


def test_the_request_is_what_servers_expect() -> None:
    with serving(Script()) as script:
        ask(target_of(script, api_key="secret", sampling={"temperature": 0}))
    [(path, headers, body)] = script.asked
    assert path == "/v1/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "m",
        "prompt": "hello there",
        "max_tokens": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "temperature": 0,
    }


def test_a_chat_endpoint_gets_messages() -> None:
    chat = Target(base_url="http://x", endpoint="/v1/chat/completions", model="m", ignore_eos=False)
    body = body_of(chat, WORK)
    assert body["messages"] == [{"role": "user", "content": "hello there"}]
    assert "prompt" not in body
    assert "ignore_eos" not in body


def test_a_chat_chunk_counts_even_where_it_has_only_a_role() -> None:
    events = [{"choices": [{"delta": delta}]} for delta in ({"role": "assistant"}, {"content": "x"})]
    with serving(Script(events=[*events, DONE])) as script:
        outcome = ask(target_of(script, endpoint="/v1/chat/completions"))
    assert (outcome.ttft_s, outcome.itl_s) == (1.0, (1.0,))


def test_a_server_that_counts_nothing_is_counted_by_its_events() -> None:
    with serving(Script(events=completion("a", "b"))) as script:
        outcome = ask(target_of(script))
    assert (outcome.num_prompt, outcome.num_output, outcome.counted) == (2, 2, False)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (Script(status=503), "503 the model is busy"),
        (Script(status=404, error={"detail": "Not Found"}), "404 Not Found"),
        (Script(status=400, error="plain\x1b[2J text"), r"400 plain\x1b[2J text"),
        (Script(events=[DONE]), "the stream ended without a token"),
        (Script(events=completion(usage=(5, 0))), "the stream ended without a token"),
        (Script(events=[*completion("a")[:1], {"error": {"message": "out of memory"}}]), "out of memory"),
        (Script(events=["{broken"]), "an event is no JSON object: {broken"),
    ],
)
def test_what_goes_wrong_is_in_the_outcome(script: Script, error: str) -> None:
    with serving(script):
        assert ask(target_of(script)).error == error


def test_a_stream_that_is_cut_is_a_failure() -> None:
    with serving(Script(events=completion("a", "b")[:2], drop=True)) as script:
        assert "RemoteProtocolError" in (ask(target_of(script)).error or "")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("model", [None, "m"])
def test_nobody_at_the_address_is_told_with_exit_code_6(model: str | None) -> None:
    serve = ServeRun(Target(base_url=f"http://127.0.0.1:{closed_port()}", model=model), [WORK], Arrivals())
    with pytest.raises(ServerError, match=r"no server answers at http://127\.0\.0\.1") as caught:
        serve.run(lambda _: None, lambda _: None)
    assert caught.value.exit_code == 6


def test_the_first_model_of_the_server_is_used_where_none_is_named() -> None:
    with serving(Script()) as script:
        serve = run(script)
    assert serve.target.model == "first-model"
    assert {body["model"] for _, _, body in script.asked} == {"first-model"}


def test_a_server_without_models_wants_a_name() -> None:
    with serving(Script(models=())) as script, pytest.raises(ServerError, match="names no model") as caught:
        run(script)
    assert "--model NAME" in caught.value.fix


def test_every_request_has_an_outcome_and_the_trial_and_the_warm_up_have_none() -> None:
    with serving(Script()) as script:
        serve = ServeRun(target_of(script), [WORK] * 5, Arrivals(), num_warmups=2)
        told: list[Outcome] = []
        serve.run(told.append, lambda _: None)
    assert len(script.asked) == 1 + 2 + 5
    assert serve.outcomes == told
    assert len(told) == 5
    assert serve.duration_s >= max(outcome.latency_s for outcome in told)


def test_no_more_requests_than_allowed_are_under_way() -> None:
    # pairs of requests meet at the gate: fewer than two at a time would never pass it, more would be counted
    with serving(Script(gate=threading.Barrier(2))) as script:
        run(script, num_works=8, max_concurrency=2)
    assert script.most_at_once == 2


def test_without_a_limit_all_are_under_way_at_once() -> None:
    with serving(Script(gate=threading.Barrier(6))) as script:
        run(script, num_works=6)
    assert script.most_at_once == 6


def test_a_server_that_refuses_the_first_request_ends_the_run() -> None:
    with serving(Script(status=404)) as script, pytest.raises(ServerError, match="first request") as caught:
        run(script)
    assert caught.value.why == "404 the model is busy"
    assert len(script.asked) == 1


def test_a_server_that_does_not_know_ignore_eos_is_told_how_to_do_without() -> None:
    unknown = Script(status=400, error={"error": {"message": "unknown field ignore_eos"}})
    with serving(unknown) as script, pytest.raises(ServerError) as caught:
        run(script)
    assert "--no-ignore-eos" in caught.value.fix


def test_requests_that_fail_later_do_not_end_the_run() -> None:
    with serving(Script(status=500, fail_from=3)) as script:
        serve = run(script, num_works=5)
    errors = [outcome.error for outcome in serve.outcomes]
    assert errors.count(None) == 2
    assert errors.count("500 the model is busy") == 3


def test_ctrl_c_keeps_what_has_ended() -> None:
    with serving(Script()) as script:
        serve = ServeRun(target_of(script), [WORK] * 50, Arrivals(max_concurrency=1))

        def stop_at_the_third(_: Outcome) -> None:
            if len(serve.outcomes) == 3:
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            serve.run(stop_at_the_third, lambda _: None)
    assert len(serve.outcomes) == 3
    assert len(script.asked) < 50


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("http://x:1", "/v1/completions", "http://x:1/v1/completions"),
        ("http://x:1/", "/v1/completions", "http://x:1/v1/completions"),
        ("http://x:1/v1", "/v1/completions", "http://x:1/v1/completions"),
        ("http://x:1/v1/", "/v1/models", "http://x:1/v1/models"),
        ("http://x/api", "/v1/models", "http://x/api/v1/models"),
        ("http://x/v1", "completions", "http://x/v1/completions"),
    ],
)
def test_an_address_works_with_and_without_v1(base_url: str, path: str, url: str) -> None:
    assert Target(base_url=base_url).url(path) == url


@pytest.mark.parametrize(
    "base_url", ["", "localhost:8000", "ftp://x", "http://", "http://x:99999", "http://[x"]
)
def test_an_address_that_is_none_is_refused(base_url: str) -> None:
    with pytest.raises(UsageError, match="--base-url must be like"):
        Target(base_url=base_url)


def test_an_endpoint_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="--endpoint must end in completions"):
        Target(base_url="http://x", endpoint="/v1/embeddings")


def test_a_prompt_that_does_not_suit_the_endpoint_is_refused_before_anything_is_sent() -> None:
    messages = Work("messages", [{"role": "user", "content": "x"}], 1)
    with pytest.raises(UsageError, match="messages, which need a chat endpoint"):
        body_of(Target(base_url="http://x"), messages)
    with pytest.raises(UsageError, match="takes no token ids"):
        body_of(Target(base_url="http://x", endpoint="/v1/chat/completions"), Work("token_ids", [1], 1))


def test_a_key_that_can_be_no_header_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match="characters that no key has") as caught:
        Target(base_url="http://x", api_key="sk-…\n")
    assert "sk-" not in str(caught.value)


def test_a_password_in_the_address_is_not_shown() -> None:
    assert Target(base_url="http://me:secret@x:1/v1").address == "http://x:1/v1"


def test_a_host_that_can_not_be_one_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--base-url http://1\.2\.3\.999: Invalid IPv4"):
        open_client(Target(base_url="http://1.2.3.999"))


def test_only_this_machine_is_reached_past_a_proxy() -> None:
    near = ["http://localhost:1", "http://127.0.0.1", "http://[::1]:8000"]
    assert [Target(base_url=url).is_this_machine for url in near] == [True] * 3
    assert not Target(base_url="http://example.com").is_this_machine


def test_an_infinite_rate_sends_all_at_once() -> None:
    assert send_times(4, Arrivals()) == [0.0] * 4


def test_infinite_burstiness_sends_at_fixed_intervals() -> None:
    times = send_times(4, Arrivals(request_rate=2, burstiness=math.inf))
    assert times == pytest.approx([0.5, 1.0, 1.5, 2.0])


@pytest.mark.parametrize("burstiness", [0.5, 1.0, 4.0])
def test_intervals_follow_the_gamma_distribution_of_the_rate(burstiness: float) -> None:
    times = send_times(20_000, Arrivals(request_rate=10, burstiness=burstiness))
    assert times[-1] == pytest.approx(2000)
    gaps = np.diff([0.0, *times])
    assert gaps.mean() == pytest.approx(0.1)
    # a gamma distribution of shape k has a standard deviation of mean / sqrt(k); 1 is exponential: Poisson
    assert gaps.std() == pytest.approx(0.1 / math.sqrt(burstiness), rel=0.03)
    if burstiness == 1:
        assert (gaps > 0.1).mean() == pytest.approx(math.exp(-1), abs=0.01)


def test_the_times_of_sending_depend_on_nothing_but_the_seed() -> None:
    first, second = (send_times(5, Arrivals(request_rate=1, seed=3)) for _ in range(2))
    assert first == second
    assert first != send_times(5, Arrivals(request_rate=1, seed=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"request_rate": 0.0}, "--request-rate must be above 0"),
        ({"burstiness": -1.0}, "--burstiness must be above 0"),
        ({"burstiness": math.nan}, "--burstiness must be above 0"),
        ({"max_concurrency": 0}, "--max-concurrency must be at least 1, got 0"),
    ],
)
def test_a_process_that_sends_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Arrivals(**options)
