"""Who is computed next: admission, order, chunks, preemption."""

import pytest

from llmcli.errors import EngineError, RequestError
from llmcli.scheduler.request import State
from tests.fakes import solo_output
from tests.scheduler.drive import Rig, request, tokens


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(RequestError, match="no tokens"):
        Rig().add(request(0, ()))


def test_a_prompt_that_leaves_no_room_for_a_token_is_refused_with_both_numbers() -> None:
    rig = Rig()
    rig.add(request(0, tokens(63)))
    with pytest.raises(RequestError, match=r"64 tokens, at most 63 fit the context of 64"):
        rig.add(request(1, tokens(64)))


def test_a_request_that_can_never_fit_the_pool_is_refused_with_both_numbers() -> None:
    rig = Rig(num_blocks=4)
    with pytest.raises(
        RequestError, match=r"17 tokens \(13 \+ 4\), 5 blocks; .* 4 blocks \(16 tokens\)"
    ) as error:
        rig.add(request(0, tokens(13)))
    assert error.value.param == "max_tokens"
    assert not rig.scheduler.has_unfinished


def test_a_request_that_just_fits_the_pool_runs_to_its_end() -> None:
    [output] = Rig(num_blocks=4).run(request(0, tokens(12)))
    assert len(output) == 4


def test_an_idle_scheduler_plans_an_empty_step() -> None:
    assert Rig().schedule().slices == ()


def test_a_long_prompt_is_computed_in_chunks_of_the_budget() -> None:
    rig = Rig(budget=4)
    rig.add(request(0, tokens(10)))
    assert [rig.step() for _ in range(4)] == [{0: 4}, {0: 4}, {0: 2}, {0: 1}]


def test_running_requests_come_before_waiting_ones() -> None:
    rig = Rig(budget=6)
    rig.add(request(0, tokens(3)))
    rig.step()
    rig.add(request(1, tokens(9)))
    assert rig.step() == {0: 1, 1: 5}
    assert rig.step() == {0: 1, 1: 4}


def test_no_request_overtakes_one_that_waits_for_blocks() -> None:
    rig = Rig(num_blocks=6, caching=False)
    rig.add(request(0, tokens(14)), request(1, tokens(12)), request(2, tokens(2)))
    assert rig.step() == {0: 14}
    assert rig.scheduler.num_waiting == 2


def test_no_more_than_max_num_seqs_run_at_once() -> None:
    rig = Rig(max_num_seqs=2)
    rig.add(*(request(i) for i in range(3)))
    assert list(rig.step()) == [0, 1]
    assert (rig.scheduler.num_running, rig.scheduler.num_waiting) == (2, 1)


def test_a_request_at_the_front_is_served_before_those_that_wait() -> None:
    rig = Rig(max_num_seqs=1)
    rig.add(request(0), request(1))
    rig.add(request(2), front=True)
    assert list(rig.step()) == [2]


def starved(*, max_tokens: int = 9, caching: bool = False) -> Rig:
    """Three requests of two blocks that soon want three, in a pool of eight; run until one is preempted."""
    rig = Rig(num_blocks=8, caching=caching)
    rig.add(*(request(i, tokens(7, first=i), max_tokens=max_tokens) for i in range(3)))
    while not rig.scheduler.num_preemptions:
        rig.step()
    return rig


def test_the_newest_request_is_preempted_when_blocks_run_out() -> None:
    rig = starved()
    states = [rig.requests[i].state for i in range(3)]
    assert states == [State.RUNNING, State.RUNNING, State.WAITING]
    assert rig.requests[2].block_ids == []


def test_a_preempted_request_goes_on_where_it_was() -> None:
    rig = starved()
    rig.drain()
    assert rig.scheduler.num_preemptions > 0
    for each in rig.requests.values():
        assert each.output_ids == solo_output(each.prompt_ids, each.params, seed=7, max_output_tokens=9)


def test_a_preempted_request_returns_ahead_of_later_ones() -> None:
    rig = starved()
    rig.add(request(3, tokens(2), max_tokens=1))
    step = rig.step()
    while 3 not in step:
        step = rig.step()
    assert list(step) == [2, 3]


def test_the_newest_request_gives_way_itself_when_it_is_the_one_that_asks() -> None:
    rig = Rig(num_blocks=5, caching=False)
    rig.add(request(0, tokens(8), max_tokens=8), request(1, tokens(7), max_tokens=9))
    rig.step()
    rig.step()
    assert rig.step() == {0: 1}
    assert rig.requests[1].num_preemptions == 1
    rig.drain()
    assert rig.requests[0].num_preemptions == 0


def test_a_preempted_request_finds_its_own_blocks_in_the_prefix_cache() -> None:
    rig = starved(max_tokens=5, caching=True)
    step = rig.step()
    while 2 not in step:
        step = rig.step()
    assert step[2] == 1
    assert rig.requests[2].num_cached_tokens == 0  # that counts the first admission only


def test_no_request_starts_before_there_are_blocks_for_all_its_tokens() -> None:
    rig = Rig(num_blocks=6, budget=8, caching=False)
    rig.add(request(0, tokens(8)), request(1, tokens(16)))
    rig.step()
    assert rig.step() == {0: 1}


def test_a_third_step_is_refused_while_two_are_in_flight() -> None:
    rig = Rig()
    rig.add(request(0))
    rig.schedule()
    rig.schedule()
    with pytest.raises(EngineError, match="in flight"):
        rig.schedule()
