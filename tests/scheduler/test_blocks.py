"""The pool: a block is free, cached or held, and the least recently used cached one goes first."""

import pytest

from llmcli.scheduler.blocks import BlockPool
from llmcli.scheduler.prefix import PrefixCache

SIZE = 2


def pool_with_cached(num_blocks: int, num_cached: int) -> tuple[BlockPool, PrefixCache, list[int]]:
    """A pool in which one sequence of `num_cached` full blocks has come and gone."""
    prefix = PrefixCache(SIZE)
    pool = BlockPool(num_blocks, SIZE, prefix)
    table = [pool.acquire() for _ in range(num_cached)]
    chain = prefix.chain(b"")
    prefix.extend(chain, range(num_cached * SIZE))
    prefix.register(chain, table, num_cached)
    pool.release(table)
    pool.check([])
    return pool, prefix, table


def counts(pool: BlockPool) -> tuple[int, int, int]:
    return pool.num_free, pool.num_cached, pool.num_held


def test_all_blocks_are_free_at_first_and_each_is_handed_out_once() -> None:
    pool = BlockPool(3, SIZE)
    assert counts(pool) == (3, 0, 0)
    assert sorted(pool.acquire() for _ in range(3)) == [0, 1, 2]
    assert counts(pool) == (0, 0, 3)


def test_an_unregistered_block_becomes_free_when_its_last_holder_lets_go() -> None:
    pool = BlockPool(3, SIZE)
    pool.release([pool.acquire()])
    assert counts(pool) == (3, 0, 0)


def test_a_registered_block_becomes_cached_when_its_last_holder_lets_go() -> None:
    pool, _, _ = pool_with_cached(3, 2)
    assert counts(pool) == (1, 2, 0)


def test_a_shared_block_is_held_until_every_holder_has_let_go() -> None:
    pool, _, table = pool_with_cached(3, 1)
    pool.share(table[0])
    pool.share(table[0])
    pool.check([table, table])
    pool.release(table)
    assert counts(pool) == (2, 0, 1)
    pool.release(table)
    assert counts(pool) == (2, 1, 0)


def test_free_blocks_are_taken_before_cached_ones() -> None:
    pool, prefix, table = pool_with_cached(3, 2)
    assert pool.acquire() not in table
    assert len(prefix) == 2


def test_a_child_is_evicted_before_its_parent() -> None:
    pool, prefix, table = pool_with_cached(3, 3)
    for left in (2, 1, 0):
        assert pool.acquire() == table[left]
        assert [block_id in prefix for block_id in table] == [index < left for index in range(3)]


def test_eviction_is_in_order_of_last_use() -> None:
    pool, prefix, _ = pool_with_cached(2, 0)
    tables = []
    for start in (0, 10):
        chain = prefix.chain(b"")
        prefix.extend(chain, (start, start + 1))
        tables.append([pool.acquire()])
        prefix.register(chain, tables[-1], 1)
    for table in tables:
        pool.release(table)
    pool.share(tables[0][0])
    pool.release(tables[0])
    assert pool.acquire() == tables[1][0]


def test_evicting_a_parent_unregisters_its_held_child_and_frees_its_cached_one() -> None:
    prefix = PrefixCache(SIZE)
    pool = BlockPool(4, SIZE, prefix)
    parent, held, cached = (pool.acquire() for _ in range(3))
    for last, child in ((8, held), (9, cached)):
        chain = prefix.chain(b"")
        prefix.extend(chain, (1, 2, 3, last))
        prefix.register(chain, [parent, child], 2)
    pool.release([parent])
    pool.release([cached])
    assert pool.acquire() == 3
    evicted = pool.acquire()
    assert evicted in (parent, cached)
    assert len(prefix) == 0
    assert counts(pool) == (1, 0, 3)
    pool.check([[held], [3], [evicted]])


def test_releasing_a_free_block_is_an_error() -> None:
    pool = BlockPool(2, SIZE)
    with pytest.raises(AssertionError, match="block 1 is released but nobody holds it"):
        pool.release([1])


def test_acquiring_from_an_empty_pool_is_an_error() -> None:
    pool = BlockPool(1, SIZE)
    pool.acquire()
    with pytest.raises(AssertionError, match="none is available"):
        pool.acquire()


@pytest.mark.parametrize(("num_tokens", "num_blocks"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_partial_block_counts_as_one(num_tokens: int, num_blocks: int) -> None:
    assert BlockPool(9, SIZE).blocks_for(num_tokens) == num_blocks
