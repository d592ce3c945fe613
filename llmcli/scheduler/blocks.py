"""The block pool: who holds each block of the KV cache, and which to give up when a new one is wanted.

A block is free, cached (no holder, but its content is registered in the prefix cache and may be found again)
or held; the three sum to the pool. Knows no requests and no tokens. `tables.py` is the only caller.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

from llmcli.scheduler.prefix import PrefixCache


class BlockPool:
    """Reference counts, free list and LRU of the blocks 0 .. num_blocks - 1.

    Args:
        num_blocks: blocks in the pool.
        block_size: tokens per block.
        prefix: the cache whose blocks are kept when their last holder lets go; None keeps none.
    """

    def __init__(self, num_blocks: int, block_size: int, prefix: PrefixCache | None = None) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._prefix = prefix
        self._free = list(range(num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._ref_counts = [0] * num_blocks

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_cached(self) -> int:
        return len(self._cached)

    @property
    def num_available(self) -> int:
        """Blocks that can be acquired now."""
        return len(self._free) + len(self._cached)

    @property
    def num_held(self) -> int:
        return self.num_blocks - self.num_available

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def is_cached(self, block_id: int) -> bool:
        return block_id in self._cached

    def acquire(self) -> int:
        """Hand out a block for writing; evicts the least recently used cached one when none is free."""
        assert self.num_available, "a block is acquired but none is available"
        if not self._free:
            self._evict()
        block_id = self._free.pop()
        self._ref_counts[block_id] = 1
        return block_id

    def share(self, block_id: int) -> None:
        """Add a holder to a block that the prefix cache found."""
        self._cached.pop(block_id, None)
        self._ref_counts[block_id] += 1

    def release(self, block_ids: Sequence[int]) -> None:
        """Drop one holder of each block of a table, the last first: a child is evicted before its parent."""
        for block_id in reversed(block_ids):
            assert self._ref_counts[block_id] > 0, f"block {block_id} is released but nobody holds it"
            self._ref_counts[block_id] -= 1
            if self._ref_counts[block_id]:
                continue
            if self._prefix is not None and block_id in self._prefix:
                self._cached[block_id] = None
            else:
                self._free.append(block_id)

    def drop_cached(self) -> None:
        """Free every cached block."""
        while self._cached:
            self._evict()

    def _evict(self) -> None:
        assert self._prefix is not None, "blocks are cached without a prefix cache"
        oldest = next(iter(self._cached))
        for block_id in self._prefix.remove(oldest):
            if block_id in self._cached:  # a descendant may have a holder still: then it is only unregistered
                del self._cached[block_id]
                self._free.append(block_id)

    def check(self, owners: Iterable[Sequence[int]]) -> None:
        """Assert that every block is in one state and held as often as the tables of its owners say."""
        recount: Counter[int] = Counter()
        for table in owners:
            assert len(set(table)) == len(table), f"a table names a block twice: {table}"
            recount.update(table)
        free = set(self._free)
        assert len(free) == len(self._free), "a block is twice in the free list"
        for block_id, ref_count in enumerate(self._ref_counts):
            states = (block_id in free) + (block_id in self._cached) + (ref_count > 0)
            assert states == 1, f"block {block_id} is in {states} of the states free, cached and held"
            held = recount[block_id]
            assert ref_count == held, f"block {block_id} has ref count {ref_count} but {held} owners"
            registered = self._prefix is not None and block_id in self._prefix
            assert registered or block_id not in self._cached, f"block {block_id} is cached, not registered"
            assert registered or ref_count < 2, f"block {block_id} is shared but not registered"
            assert not (registered and block_id in free), f"block {block_id} is registered but free"
        total = len(free) + len(self._cached) + len(recount)
        assert total == self.num_blocks, f"free, cached and held sum to {total}, not {self.num_blocks}"
