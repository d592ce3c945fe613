"""Steps that are planned while the one before runs: what is decided early, what waits, and what is dropped."""

import pytest

from llmcli.scheduler.scheduler import SequenceUpdate
from llmcli.scheduler.step import UNKNOWN, SampledToken, Step, StepResult
from tests.fakes import solo_output
from tests.scheduler.drive import Rig, request, tokens


def begun(*requests: object, **sizes: int) -> tuple[Rig, Step]:
    """A rig whose first step is in flight, and that step."""
    rig = Rig(**sizes)  # type: ignore[arg-type]
    rig.add(*requests)  # type: ignore[arg-type]
    return rig, rig.schedule()


def give(rig: Rig, step: Step, *token_ids: int) -> list[SequenceUpdate]:
    """The step has drawn these tokens."""
    drawn = (s.seq_id for s in step.slices if s.sample is not None)
    pairs = zip(drawn, token_ids, strict=True)
    updates = rig.scheduler.apply(step, StepResult(tuple(SampledToken(*pair) for pair in pairs)))
    rig.scheduler.check()
    return updates


def test_a_sequence_goes_on_by_the_token_that_is_being_drawn() -> None:
    rig, _ = begun(request(0, tokens(5)))
    [late] = rig.schedule().slices
    assert (late.late, late.start, late.token_ids, late.end) == (True, 5, (UNKNOWN,), 6)
    assert late.sample is not None
    assert late.sample.position == 1


def test_a_chunk_after_a_chunk_is_known() -> None:
    rig, first = begun(request(0, tokens(9)), budget=4)
    second = rig.schedule()
    assert [(s.start, s.late, s.sample) for s in (*first.slices, *second.slices)] == [
        (0, False, None),
        (4, False, None),
    ]
    assert second.slices[0].token_ids == tokens(9)[4:8]


def test_a_new_request_joins_while_a_step_runs() -> None:
    rig, _ = begun(request(0))
    rig.add(request(1))
    assert [(s.seq_id, s.late) for s in rig.schedule().slices] == [(0, True), (1, False)]


def test_the_last_token_of_an_output_is_followed_by_none() -> None:
    rig, first = begun(request(0, max_tokens=1))
    assert rig.schedule().slices == ()
    assert [update.finish_reason for update in give(rig, first, 9)] == ["length"]
    assert rig.scheduler.num_blocks_used == 0


def test_a_sequence_that_ended_has_its_next_token_dropped_and_its_blocks_released_when_that_lands() -> None:
    rig, first = begun(request(0, stop_ids=(6,)), request(1))
    second = rig.schedule()
    held = rig.scheduler.num_blocks_used
    assert [update.finish_reason for update in give(rig, first, 6, 9)] == ["stop", None]
    assert rig.scheduler.num_blocks_used == held
    assert [update.seq_id for update in give(rig, second, 10, 11)] == [1]
    assert rig.requests[0].output_ids == [6]
    assert rig.scheduler.num_blocks_used == held // 2


def test_a_row_that_is_not_finite_takes_its_next_token_with_it() -> None:
    rig, first = begun(request(0))
    second = rig.schedule()
    [update] = rig.scheduler.apply(first, StepResult((SampledToken(0, 0, finite=False),)))
    assert update.finish_reason == "error"
    assert give(rig, second, 9) == []
    assert (rig.scheduler.num_blocks_used, rig.scheduler.num_blocks_cached) == (0, 0)


def test_blocks_are_hashed_when_all_their_ids_are_known() -> None:
    rig, first = begun(request(0, tokens(3), max_tokens=9))
    second = rig.schedule()  # it fills the block of 4 with a token that nobody knows
    assert rig.scheduler.num_blocks_cached == 0
    give(rig, first, 9)
    third = rig.schedule()
    give(rig, second, 10)
    rig.scheduler.abort(0)
    give(rig, third, 11)
    assert rig.scheduler.num_blocks_cached == 1
    rig.add(request(1, (*tokens(3), 9, 8)))
    assert rig.schedule().slices[0].start == 4


def test_penalties_are_told_the_tokens_that_are_known() -> None:
    rig, first = begun(request(0), request(1, repetition_penalty=1.5))
    for known in ((), (10,)):
        [plain, penalised] = rig.schedule().slices
        assert plain.late
        assert penalised.late
        assert penalised.sample is not None
        assert penalised.sample.output_ids == known
        give(rig, first, 9, 10)
        first = rig.scheduler._in_flight[0]


def test_preemption_waits_until_nothing_is_in_flight_and_leaves_no_block_behind() -> None:
    rig, first = begun(request(0, tokens(7)), request(1, tokens(7, 15)), num_blocks=4)
    second = rig.schedule()  # both fill their second block
    assert [s.end for s in second.slices] == [8, 8]
    give(rig, first, 9, 9)
    assert rig.schedule().slices == ()
    assert (rig.scheduler.num_preemptions, rig.scheduler.num_blocks_used) == (0, 4)
    give(rig, second, 10, 10)
    assert [s.seq_id for s in rig.schedule().slices] == [0]
    assert rig.scheduler.num_preemptions == 1


def test_a_request_aborted_with_two_steps_in_flight_keeps_its_blocks_until_the_second_lands() -> None:
    rig, first = begun(request(0, tokens(9)))
    second = rig.schedule()
    held = rig.scheduler.num_blocks_used
    rig.scheduler.abort(0)
    for step, used in ((first, held), (second, 0)):
        assert give(rig, step, 9) == []
        assert rig.scheduler.num_blocks_used == used


def test_discarded_steps_are_computed_again() -> None:
    rig, first = begun(request(0, tokens(9)), request(1, tokens(3)))
    rig.schedule()
    rig.scheduler.abort(1)
    rig.scheduler.discard()
    rig.scheduler.check()
    assert rig.scheduler.num_blocks_used == 0
    [again] = rig.schedule().slices
    assert (again.seq_id, again.start, again.token_ids) == (0, 0, first.slices[0].token_ids)
    rig.scheduler.discard()
    rig.drain()
    expected = solo_output(tokens(9), rig.requests[0].params, seed=7, max_output_tokens=4)
    assert rig.requests[0].output_ids == expected


@pytest.mark.parametrize("landed", [0, 1])
def test_tokens_that_landed_are_kept_when_the_others_are_discarded(landed: int) -> None:
    rig, first = begun(request(0, tokens(9)))
    rig.schedule()
    if landed:
        give(rig, first, 9)
    rig.scheduler.discard()
    [again] = rig.schedule().slices
    assert (again.late, again.end) == (False, 9 + landed)
