"""The prefix cache: equal contexts hit, all others miss, whatever the hash."""

import pytest

from llmcli.scheduler.prefix import Chain, PrefixCache
from tests.scheduler.drive import Rig, request, tokens

SIZE = 2


def chain_of(cache: PrefixCache, *ids: int, salt: bytes = b"") -> Chain:
    chain = cache.chain(salt)
    cache.extend(chain, ids)
    return chain


def enter(cache: PrefixCache, ids: tuple[int, ...], block_ids: list[int], salt: bytes = b"") -> Chain:
    chain = chain_of(cache, *ids, salt=salt)
    cache.register(chain, block_ids, len(block_ids))
    cache.check()
    return chain


def hit(cache: PrefixCache, *ids: int, salt: bytes = b"") -> list[int]:
    return cache.match(chain_of(cache, *ids, salt=salt), 99)


def test_the_longest_common_run_of_full_blocks_is_found() -> None:
    cache = PrefixCache(SIZE)
    enter(cache, (1, 2, 3, 4, 5, 6), [7, 8, 9])
    assert hit(cache, 1, 2, 3, 4, 5, 6, 7) == [7, 8, 9]
    assert hit(cache, 1, 2, 3, 4, 5, 0) == [7, 8]
    assert hit(cache, 1, 2, 3) == [7]
    assert hit(cache, 3, 4) == []


def test_another_salt_never_hits() -> None:
    cache = PrefixCache(SIZE)
    enter(cache, (1, 2, 3, 4), [7, 8], salt=b"a")
    assert hit(cache, 1, 2, 3, 4, salt=b"b") == []
    assert hit(cache, 1, 2, 3, 4) == []


def test_the_first_copy_of_a_block_stays() -> None:
    cache = PrefixCache(SIZE)
    enter(cache, (1, 2), [7])
    enter(cache, (1, 2, 3, 4), [8, 9])
    assert hit(cache, 1, 2, 3, 4) == [7, 9]
    assert 8 not in cache


def test_a_removed_block_takes_its_followers_along() -> None:
    cache = PrefixCache(SIZE)
    enter(cache, (1, 2, 3, 4, 5, 6), [7, 8, 9])
    assert sorted(cache.remove(8)) == [8, 9]
    cache.check()
    assert hit(cache, 1, 2, 3, 4, 5, 6) == [7]


def test_a_request_whose_earlier_copy_was_evicted_enters_its_own_blocks() -> None:
    cache = PrefixCache(SIZE)
    enter(cache, (1, 2), [7])
    chain = enter(cache, (1, 2, 3, 4), [8, 9])
    cache.remove(7)
    cache.extend(chain, (5, 6))
    cache.register(chain, [8, 9, 10], 3)
    cache.check()
    assert hit(cache, 1, 2, 3, 4, 5, 6) == [8, 9, 10]


def test_each_block_is_hashed_once() -> None:
    hashed: list[bytes] = []

    def spy(data: bytes) -> bytes:
        hashed.append(data)
        return bytes([len(hashed)])

    cache = PrefixCache(SIZE, spy)
    chain = chain_of(cache, 1, 2, 3, 4)
    for _ in range(3):
        cache.match(chain, 2)
    cache.register(chain, [7, 8], 2)
    assert len(hashed) == 3  # the root and two blocks


def test_two_instances_give_the_same_tokens_different_keys() -> None:
    assert chain_of(PrefixCache(SIZE), 1, 2).keys != chain_of(PrefixCache(SIZE), 1, 2).keys


def constant(data: bytes) -> bytes:
    return b"same for all"


@pytest.mark.parametrize("ids", [(3, 4), (1, 2, 1, 2), (9, 9), (1, 3)])
def test_a_collision_is_a_miss(ids: tuple[int, ...]) -> None:
    cache = PrefixCache(SIZE, constant)
    enter(cache, (1, 2), [7])
    assert hit(cache, *ids) == ([7] if ids[:2] == (1, 2) else [])
    assert hit(cache, 1, 2, salt=b"a") == []


def test_equal_tokens_after_a_colliding_parent_are_a_miss() -> None:
    """A first block is replaced by another context's with the same key: its child must have gone with it."""
    cache = PrefixCache(SIZE, lambda data: b"child" if data.endswith(b"\x05" + b"\x00" * 7) else b"parent")
    enter(cache, (1, 2, 4, 5), [7, 8])
    cache.remove(7)
    enter(cache, (2, 1), [9])
    assert hit(cache, 2, 1, 4, 5) == [9]


def test_a_constant_hash_gives_no_wrong_text() -> None:
    prompts = [tokens(9), tokens(9, first=3), tokens(9), tokens(5)]
    honest, broken = Rig(caching=False), Rig(prefix=PrefixCache(4, constant))
    for seq_id, prompt in enumerate(prompts):
        assert honest.run(request(seq_id, prompt)) == broken.run(request(seq_id, prompt))
    assert broken.requests[1].num_cached_tokens == 0


def test_a_second_request_with_the_same_prompt_is_served_from_the_cache() -> None:
    rig = Rig()
    first, second = rig.run(request(0, tokens(9))), rig.run(request(1, tokens(9)))
    assert first == second
    assert [rig.requests[i].num_cached_tokens for i in (0, 1)] == [0, 8]
    assert (rig.scheduler.prefix_queried_tokens, rig.scheduler.prefix_hit_tokens) == (18, 8)


@pytest.mark.parametrize(("length", "cached"), [(3, 0), (4, 0), (5, 4), (8, 4), (9, 8), (12, 8), (13, 12)])
def test_the_last_prompt_token_is_always_computed(length: int, cached: int) -> None:
    rig = Rig()
    rig.run(request(0, tokens(13)))
    rig.run(request(1, tokens(length)))
    assert rig.requests[1].num_cached_tokens == cached


def test_output_tokens_are_found_by_the_next_turn() -> None:
    rig = Rig()
    [answer] = rig.run(request(0, tokens(6), max_tokens=8))
    rig.run(request(1, (*tokens(6), *answer, 9)))
    assert rig.requests[1].num_cached_tokens == 12  # the 14th token was drawn but never computed


def test_two_equal_prompts_in_one_step_are_both_computed() -> None:
    rig = Rig()
    rig.add(request(0, tokens(8)), request(1, tokens(8)))
    assert rig.step() == {0: 8, 1: 8}
    rig.drain()
    assert rig.requests[0].output_ids == rig.requests[1].output_ids


def test_requests_with_different_salts_share_nothing() -> None:
    rig = Rig()
    a, b = rig.run(request(0, tokens(9), salt=b"a")) + rig.run(request(1, tokens(9), salt=b"b"))
    assert a != b
    assert rig.requests[1].num_cached_tokens == 0


def test_reset_forgets_blocks_and_statistics_but_not_while_a_request_runs() -> None:
    rig = Rig()
    rig.run(request(0, tokens(9)))
    rig.add(request(1, tokens(9, first=5)))
    rig.step()
    assert not rig.scheduler.reset_prefix_cache()
    rig.drain()
    assert rig.scheduler.reset_prefix_cache()
    assert (rig.scheduler.num_blocks_cached, rig.scheduler.prefix_queried_tokens) == (0, 0)
    rig.run(request(2, tokens(9)))
    assert rig.requests[2].num_cached_tokens == 0
