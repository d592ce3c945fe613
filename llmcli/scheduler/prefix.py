"""The prefix cache: finds the blocks that already hold the keys and values of a prompt's beginning.

A full block is named by a chained hash (its parent's key and its own tokens), rooted in a secret of this
instance and in the request's salt (adapter, tenant), so that equal keys mean equal contexts. Owns the names
only: it knows no reference counts and no requests. `tables.py` asks and registers, `blocks.py` removes what
it evicts.
"""

import secrets
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

HashFunction = Callable[[bytes], bytes]


def sha256_digest(data: bytes) -> bytes:
    return sha256(data).digest()


@dataclass(slots=True, eq=False)
class Node:
    """A registered block.

    `parent` is the node before it, or the root bytes of its chain. Nodes are compared by identity, and none
    stays in the cache without its parent: so equal parent and equal tokens prove an equal context, whatever
    the hash.
    """

    key: bytes
    block_id: int
    tokens: tuple[int, ...]
    parent: "Node | bytes"
    children: set["Node"] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Chain:
    """One request's way through the cache.

    Attributes:
        root: what the context depends on besides its tokens.
        keys, tokens: of its full blocks, in order; each is hashed once.
        num_nodes, tail: how many of its blocks have a node (its own or an earlier copy), and the last one.
    """

    root: bytes
    keys: list[bytes] = field(default_factory=list)
    tokens: list[tuple[int, ...]] = field(default_factory=list)
    num_nodes: int = 0
    tail: Node | bytes = field(init=False)

    def __post_init__(self) -> None:
        self.rewind()

    def rewind(self) -> None:
        self.num_nodes = 0
        self.tail = self.root

    def advance(self, node: Node) -> None:
        self.num_nodes += 1
        self.tail = node


class PrefixCache:
    """Registered blocks by key.

    Args:
        block_size: tokens per block.
        hash_function: bytes to key. A collision costs a hit, never a wrong one.
    """

    def __init__(self, block_size: int, hash_function: HashFunction = sha256_digest) -> None:
        self.block_size = block_size
        self.num_queried_tokens = 0
        self.num_hit_tokens = 0
        self._hash = hash_function
        self._secret = secrets.token_bytes(16)  # keys can not be computed from outside
        self._by_key: dict[bytes, Node] = {}
        self._by_block: dict[int, Node] = {}

    def __len__(self) -> int:
        return len(self._by_block)

    def __contains__(self, block_id: int) -> bool:
        return block_id in self._by_block

    def chain(self, salt: bytes) -> Chain:
        """An empty chain; two requests share blocks only when their salts are equal."""
        return Chain(self._secret + salt)

    def extend(self, chain: Chain, tokens: Sequence[int]) -> None:
        """Hash the full blocks in `tokens`, which follow those that the chain has already."""
        parent = chain.keys[-1] if chain.keys else self._hash(chain.root)
        for start in range(0, len(tokens) - self.block_size + 1, self.block_size):
            block = tuple(tokens[start : start + self.block_size])
            parent = self._hash(parent + array("q", block).tobytes())
            chain.keys.append(parent)
            chain.tokens.append(block)

    def match(self, chain: Chain, max_blocks: int) -> list[int]:
        """The ids of the longest run of registered blocks at the chain's start, `max_blocks` at most."""
        chain.rewind()
        block_ids: list[int] = []
        for index in range(min(max_blocks, len(chain.keys))):
            node = self._by_key.get(chain.keys[index])
            if node is None or not _same_context(node, chain, index):
                break
            chain.advance(node)
            block_ids.append(node.block_id)
        return block_ids

    def register(self, chain: Chain, block_ids: Sequence[int], num_blocks: int) -> None:
        """Enter a request's first `num_blocks` blocks; an equal block that is there already stays.

        Its blocks stay out from the first key that another context occupies.
        """
        if isinstance(chain.tail, Node) and self._by_key.get(chain.tail.key) is not chain.tail:
            chain.rewind()  # the earlier copy that it followed was evicted: its own blocks take the place
        while chain.num_nodes < num_blocks:
            index = chain.num_nodes
            node = self._by_key.get(chain.keys[index])
            if node is None:
                node = self._enter(chain, block_ids[index])
            elif not _same_context(node, chain, index):
                return
            chain.advance(node)

    def _enter(self, chain: Chain, block_id: int) -> Node:
        assert block_id not in self._by_block, f"block {block_id} is registered under another key"
        node = Node(chain.keys[chain.num_nodes], block_id, chain.tokens[chain.num_nodes], chain.tail)
        self._by_key[node.key] = node
        self._by_block[block_id] = node
        if isinstance(node.parent, Node):
            node.parent.children.add(node)
        return node

    def remove(self, block_id: int) -> list[int]:
        """Forget a block and all that follow it, which could not be reached any more; returns their ids."""
        node = self._by_block[block_id]
        if isinstance(node.parent, Node):
            node.parent.children.discard(node)
        removed: list[int] = []
        pending = [node]
        while pending:
            node = pending.pop()
            pending.extend(node.children)
            node.children.clear()
            del self._by_key[node.key], self._by_block[node.block_id]
            removed.append(node.block_id)
        return removed

    def count(self, num_queried: int, num_hit: int) -> None:
        """Add one admitted request to the statistics, in tokens."""
        self.num_queried_tokens += num_queried
        self.num_hit_tokens += num_hit

    def reset(self) -> None:
        """Forget every block and the statistics."""
        self._by_key.clear()
        self._by_block.clear()
        self.num_queried_tokens = self.num_hit_tokens = 0

    def tokens_of(self, block_id: int) -> tuple[int, ...]:
        """The tokens whose keys and values a registered block holds."""
        return self._by_block[block_id].tokens

    def check(self) -> None:
        """Assert that both indexes agree and that no node's parent is gone."""
        assert len(self._by_key) == len(self._by_block), "the indexes by key and by block differ in length"
        for key, node in self._by_key.items():
            assert node.key == key, f"block {node.block_id} is indexed under another key"
            assert self._by_block.get(node.block_id) is node, f"block {node.block_id} is missing by id"
            assert len(node.tokens) == self.block_size, f"block {node.block_id} is registered but not full"
            if isinstance(node.parent, Node):
                assert self._by_key.get(node.parent.key) is node.parent, f"parent of {node.block_id} is gone"
                assert node in node.parent.children, f"parent of {node.block_id} does not know it"


def _same_context(node: Node, chain: Chain, index: int) -> bool:
    return node.parent == chain.tail and node.tokens == chain.tokens[index]
