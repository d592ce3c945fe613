"""Block tables of requests: the one place where block pool and prefix cache meet.

Owns every change of `Request.block_ids`. Knows no queue, no budget and no policy: the scheduler says who gets
blocks and who loses them.
"""

from collections.abc import Iterable

from llmcli.scheduler.blocks import BlockPool
from llmcli.scheduler.prefix import PrefixCache
from llmcli.scheduler.request import Request


class BlockTables:
    """Gives blocks to requests and takes them back.

    Args:
        pool: the blocks.
        prefix: the cache that the pool was made with, or None.
    """

    def __init__(self, pool: BlockPool, prefix: PrefixCache | None) -> None:
        self.pool = pool
        self.prefix = prefix

    def open(self, request: Request) -> None:
        """Hash a new request's prompt, once."""
        if self.prefix is not None:
            request.chain = self.prefix.chain(request.cache_salt)
            self.prefix.extend(request.chain, request.prompt_ids)

    def admit(self, request: Request) -> bool:
        """Give a request without blocks those that the prefix cache has for it.

        Does nothing, and says False, when the pool lacks the blocks for all of its known tokens: begun all
        the same, it would be preempted before it has drawn a token. The last known token is never taken from
        the cache, so that there are logits to draw from.
        """
        known = self._match(request)
        num_new = self.pool.blocks_for(request.num_tokens) - len(known)
        if num_new > self.pool.num_available - sum(map(self.pool.is_cached, known)):
            return False
        for block_id in known:
            self.pool.share(block_id)
        request.block_ids.extend(known)
        request.rewind(len(known) * self.pool.block_size)
        if self.prefix is not None and request.num_preemptions == 0:
            request.num_cached_tokens = request.num_computed
            self.prefix.count(len(request.prompt_ids), request.num_cached_tokens)
        return True

    def _match(self, request: Request) -> list[int]:
        if self.prefix is None or request.chain is None:
            return []
        self._extend_chain(request, request.num_tokens)
        return self.prefix.match(request.chain, (request.num_tokens - 1) // self.pool.block_size)

    def grow(self, request: Request, num_tokens: int) -> bool:
        """Make room for a request's first `num_tokens` positions, or do nothing and say False."""
        num_new = self.pool.blocks_for(num_tokens) - len(request.block_ids)
        if num_new <= 0:
            return True
        if num_new > self.pool.num_available:
            return False
        request.block_ids.extend(self.pool.acquire() for _ in range(num_new))
        return True

    def register(self, request: Request) -> None:
        """Enter a request's full blocks in the prefix cache.

        Called only when the row of logits at the last computed position was finite: that row depends on every
        position before it, and so vouches for all of the blocks.
        """
        num_full = request.num_computed // self.pool.block_size
        if self.prefix is None or request.chain is None or request.chain.num_nodes >= num_full:
            return
        self._extend_chain(request, request.num_computed)
        self.prefix.register(request.chain, request.block_ids, num_full)

    def _extend_chain(self, request: Request, num_tokens: int) -> None:
        assert self.prefix is not None
        assert request.chain is not None
        start = len(request.chain.keys) * self.pool.block_size
        if num_tokens - start >= self.pool.block_size:
            self.prefix.extend(request.chain, request.tokens(start, num_tokens))

    def release(self, request: Request) -> None:
        """Take all blocks of a request back; those that are registered can still be found."""
        self.pool.release(request.clear_blocks())

    def trim(self, request: Request) -> None:
        """Take back the blocks that nothing computed or in flight needs."""
        self.pool.release(request.cut_blocks(self.pool.blocks_for(request.num_planned)))

    def reset_prefix_cache(self) -> None:
        """Forget every cached block. Nothing may be running."""
        if self.prefix is not None:
            self.pool.drop_cached()
            self.prefix.reset()

    def check(self, requests: Iterable[Request]) -> None:
        """Assert that pool, cache and the tables of all requests with blocks agree."""
        requests = list(requests)
        self.pool.check(request.block_ids for request in requests)
        if self.prefix is None:
            return
        self.prefix.check()
        size = self.pool.block_size
        for request in requests:
            for index, block_id in enumerate(request.block_ids):
                if block_id not in self.prefix:
                    continue
                end = (index + 1) * size
                assert end <= request.num_computed, f"block {block_id} is registered but not fully computed"
                same = self.prefix.tokens_of(block_id) == request.tokens(end - size, end)
                assert same, f"block {block_id} holds other tokens than sequence {request.seq_id} has there"
