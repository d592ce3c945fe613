"""A request's tokens, slices and reasons to stop."""

import pytest

from llmcli.sampling import SamplingParams
from llmcli.scheduler.request import output_room, stop_ids
from tests.scheduler.drive import request


def test_stop_ids_join_end_ids_and_the_requests_own() -> None:
    assert stop_ids(SamplingParams(stop_token_ids=(5,)), (1, 2)) == {1, 2, 5}


def test_ignore_eos_leaves_only_the_requests_own_stop_ids() -> None:
    assert stop_ids(SamplingParams(stop_token_ids=(5,), ignore_eos=True), (1, 2)) == {5}


@pytest.mark.parametrize(("max_tokens", "room"), [(None, 90), (20, 20), (90, 90), (91, 90), (500, 90)])
def test_output_room_is_what_is_asked_for_or_what_the_context_leaves(
    max_tokens: int | None, room: int
) -> None:
    assert output_room(SamplingParams(max_tokens=max_tokens), 10, 100) == room


def test_tokens_are_cut_across_prompt_and_output() -> None:
    req = request(0, (10, 11, 12))
    req.output_ids.extend((20, 21))
    known = (10, 11, 12, 20, 21)
    for start in range(6):
        for end in range(start, 6):
            assert req.tokens(start, end) == known[start:end]


def test_a_slice_draws_only_when_it_reaches_the_last_known_token() -> None:
    req = request(3, (10, 11, 12))
    req.block_ids.append(9)
    part = req.next_slice(2)
    assert (part.start, part.token_ids, part.block_ids, part.sample) == (0, (10, 11), (9,), None)
    whole = req.next_slice(3)
    assert whole.sample is not None
    assert (whole.sample.seed, whole.sample.choice, whole.sample.position) == (7, 0, 0)


def test_stop_ids_are_banned_until_min_tokens() -> None:
    req = request(0, (10,), stop_ids=(6, 4), min_tokens=2)
    banned = []
    for _ in range(4):
        sample = req.next_slice(req.num_unplanned).sample
        assert sample is not None
        banned.append(sample.banned_ids)
        req.output_ids.append(20)
    assert banned == [(4, 6), (4, 6), (), ()]


def test_history_goes_down_only_when_a_penalty_needs_it() -> None:
    plain, penalised = request(0, (10, 11)), request(1, (10, 11), presence_penalty=1.0)
    for req in (plain, penalised):
        req.output_ids.append(20)
    samples = [req.next_slice(3).sample for req in (plain, penalised)]
    assert [(s.prompt_ids, s.output_ids) for s in samples if s] == [((), ()), ((10, 11), (20,))]


@pytest.mark.parametrize(
    ("token_id", "reason"),
    [(4, ("stop", None)), (6, ("stop", 6)), (20, (None, None))],
)
def test_an_end_id_stops_without_a_reason_and_a_requested_id_with_itself(
    token_id: int, reason: tuple[str | None, int | None]
) -> None:
    req = request(0, stop_ids=(4, 6), stop_token_ids=(6,))
    req.output_ids.append(token_id)
    assert req.reason_to_stop() == reason


def test_the_last_token_in_the_limit_ends_by_length_unless_it_is_a_stop_id() -> None:
    req = request(0, max_tokens=2, stop_ids=(4,))
    req.output_ids.extend((20, 21))
    assert req.reason_to_stop() == ("length", None)
    req.output_ids[-1] = 4
    assert req.reason_to_stop() == ("stop", None)


def test_a_table_that_was_cut_and_grew_again_is_not_the_old_one() -> None:
    req = request(0)
    req.block_ids.extend((1, 2))
    assert req.next_slice(5).block_ids == (1, 2)
    assert req.cut_blocks(1) == [2]
    req.block_ids.append(3)
    assert req.next_slice(5).block_ids == (1, 3)
