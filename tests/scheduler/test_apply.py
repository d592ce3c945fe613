"""What becomes of a step's result: tokens, ends, errors, and requests that left in the meantime."""

import pytest

from llmcli.errors import EngineError
from llmcli.outputs import Logprob, TokenLogprobs
from llmcli.scheduler.request import State
from llmcli.scheduler.scheduler import SequenceUpdate
from llmcli.scheduler.step import SampledToken, StepResult
from tests.fakes import solo_output
from tests.scheduler.drive import Rig, request, tokens


def apply_token(rig: Rig, token_id: int) -> SequenceUpdate:
    """Give the one running sequence this token."""
    step = rig.schedule()
    [update] = rig.scheduler.apply(step, StepResult((SampledToken(step.slices[0].seq_id, token_id),)))
    rig.scheduler.check()
    return update


def test_a_chunk_in_the_middle_of_a_prompt_gives_no_update() -> None:
    rig = Rig(budget=4)
    rig.add(request(0, tokens(5)))
    assert rig.apply(rig.schedule()) == []
    assert len(rig.apply(rig.schedule())) == 1


def test_logprobs_are_passed_through() -> None:
    rig = Rig()
    rig.add(request(0))
    logprobs = TokenLogprobs(Logprob(9, -0.5, 1), ())
    [update] = rig.scheduler.apply(rig.schedule(), StepResult((SampledToken(0, 9, logprobs),)))
    assert update == SequenceUpdate(0, 9, logprobs)


def test_an_end_id_is_an_output_token_and_ends_the_request() -> None:
    rig = Rig()
    req = request(0, stop_ids=(6,))
    rig.add(req)
    assert apply_token(rig, 6) == SequenceUpdate(0, 6, finish_reason="stop")
    assert (req.output_ids, req.state, req.finish_reason) == ([6], State.FINISHED, "stop")


def test_a_requested_stop_id_is_the_stop_reason() -> None:
    rig = Rig()
    rig.add(request(0, stop_ids=(6,), stop_token_ids=(6,)))
    assert apply_token(rig, 6).stop_reason == 6


def test_the_last_token_ends_by_length() -> None:
    rig = Rig()
    rig.add(request(0, max_tokens=2))
    assert apply_token(rig, 9).finish_reason is None
    assert apply_token(rig, 9).finish_reason == "length"


def test_min_tokens_keeps_the_runner_from_stopping() -> None:
    rig = Rig()
    rig.run(request(0, max_tokens=30, stop_ids=tuple(range(31)), min_tokens=12))
    assert rig.requests[0].output_ids[:12] == [31] * 12


def test_nothing_of_a_finished_request_stays() -> None:
    rig = Rig(caching=False)
    rig.run(request(0))
    scheduler = rig.scheduler
    assert (scheduler.has_unfinished, scheduler.num_running, scheduler.num_blocks_used) == (False, 0, 0)
    assert not scheduler.abort(0)


def test_a_request_can_be_ended_for_a_reason_found_outside() -> None:
    rig = Rig()
    rig.add(request(0))
    rig.step()
    assert rig.scheduler.finish(0, "stop")
    rig.scheduler.check()
    assert rig.requests[0].finish_reason == "stop"


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_an_abort_frees_the_blocks_at_once_between_steps(steps: int) -> None:
    rig = Rig(budget=4)
    rig.add(request(0, tokens(9)))
    for _ in range(steps):
        rig.step()
    assert rig.scheduler.abort(0)
    rig.scheduler.check()
    assert rig.scheduler.num_blocks_used == 0


def test_an_abort_in_flight_frees_the_blocks_when_the_step_lands() -> None:
    rig = Rig()
    rig.add(request(0), request(1))
    step = rig.schedule()
    held = rig.scheduler.num_blocks_used
    assert rig.scheduler.abort(0)
    rig.scheduler.check()
    assert rig.scheduler.num_blocks_used == held
    assert [update.seq_id for update in rig.apply(step)] == [1]
    assert rig.scheduler.num_blocks_used == held // 2


def test_the_blocks_of_a_request_aborted_in_flight_are_never_cached() -> None:
    rig = Rig()
    rig.add(request(0, tokens(9)))
    step = rig.schedule()
    rig.scheduler.abort(0)
    rig.apply(step)
    assert rig.scheduler.num_blocks_cached == 0


def test_a_row_that_is_not_finite_fails_its_own_request_only() -> None:
    rig = Rig()
    rig.add(request(0, tokens(9)), bad_position=10)
    rig.add(request(1, tokens(9)))
    updates = [update for _ in range(3) for update in rig.apply(rig.schedule())]
    error = "numerical error: the logits at output position 2 are not finite"
    assert SequenceUpdate(0, None, finish_reason="error", error=error) in updates
    rig.drain()
    for seq_id, length in ((0, 2), (1, 4)):
        solo = solo_output(tokens(9), rig.requests[seq_id].params, seed=7, max_output_tokens=4)
        assert rig.requests[seq_id].output_ids == solo[:length]


@pytest.mark.parametrize("budget", [4, 7, 64])
def test_blocks_that_led_to_a_row_that_is_not_finite_are_never_cached(budget: int) -> None:
    """Also those of earlier chunks, which nothing was drawn from."""
    rig = Rig(budget=budget)
    rig.add(request(0, tokens(13)), bad_position=2)
    rig.drain()
    assert rig.requests[0].finish_reason == "error"
    assert (rig.scheduler.num_blocks_cached, rig.scheduler.num_blocks_used) == (0, 0)


def test_a_discarded_step_is_computed_again() -> None:
    rig = Rig()
    rig.add(request(0, tokens(9)), request(1, tokens(3)))
    rig.schedule()
    rig.scheduler.abort(1)
    rig.scheduler.discard()
    rig.scheduler.check()
    assert rig.scheduler.num_blocks_used == 0
    rig.drain()
    assert rig.requests[0].output_ids == solo_output(
        tokens(9), rig.requests[0].params, seed=7, max_output_tokens=4
    )


def test_a_result_of_another_step_is_refused() -> None:
    rig = Rig()
    rig.add(request(0))
    step = rig.schedule()
    rig.apply(step)
    with pytest.raises(EngineError, match="not in flight"):
        rig.scheduler.apply(step, StepResult(()))


def test_a_result_with_the_wrong_tokens_is_refused() -> None:
    rig = Rig()
    rig.add(request(0))
    with pytest.raises(EngineError, match="not those"):
        rig.scheduler.apply(rig.schedule(), StepResult(()))
