"""The tests' own instruments: a fault planted on purpose must be found."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from llmcli.scheduler.blocks import BlockPool
from llmcli.scheduler.prefix import PrefixCache
from llmcli.scheduler.request import State
from llmcli.scheduler.scheduler import Scheduler
from llmcli.scheduler.step import Step
from tests.scheduler.drive import Rig, request, tokens


def running() -> Rig:
    """Two sequences that share their first block, and one that waits."""
    rig = Rig(max_num_seqs=2)
    rig.run(request(0, tokens(5)))
    rig.add(request(1, tokens(7)), request(2, tokens(6)), request(3))
    rig.step()
    return rig


FAULTS: dict[str, Callable[[Scheduler, BlockPool, PrefixCache, Rig], object]] = {
    "a lost reference": lambda s, pool, prefix, rig: pool._ref_counts.__setitem__(
        rig.requests[1].block_ids[0], 1
    ),
    "a leaked reference": lambda s, pool, prefix, rig: pool._ref_counts.__setitem__(pool._free[0], 1),
    "a lost block": lambda s, pool, prefix, rig: pool._free.pop(),
    "a block freed while held": lambda s, pool, prefix, rig: pool._free.append(rig.requests[1].block_ids[0]),
    "a block free twice": lambda s, pool, prefix, rig: pool._free.append(pool._free[0]),
    "a free block that is cached": lambda s, pool, prefix, rig: pool._cached.setdefault(pool._free[0]),
    "a block twice in a table": lambda s, pool, prefix, rig: rig.requests[1].block_ids.append(
        rig.requests[1].block_ids[0]
    ),
    "a block too many": lambda s, pool, prefix, rig: rig.requests[1].block_ids.append(pool.acquire()),
    "a shared block that is not registered": lambda s, pool, prefix, rig: prefix.remove(
        rig.requests[1].block_ids[0]
    ),
    "a partial block that is registered": lambda s, pool, prefix, rig: setattr(
        rig.requests[1], "num_computed", 3
    ),
    "a registered block with other tokens": lambda s, pool, prefix, rig: setattr(
        prefix._by_block[rig.requests[1].block_ids[0]], "tokens", (0, 0, 0, 0)
    ),
    "a block registered under another key": lambda s, pool, prefix, rig: setattr(
        prefix._by_block[rig.requests[1].block_ids[0]], "key", b""
    ),
    "a lost request": lambda s, pool, prefix, rig: s._waiting.pop(),
    "a wrong state": lambda s, pool, prefix, rig: setattr(rig.requests[3], "state", State.RUNNING),
    "a queue out of order": lambda s, pool, prefix, rig: s._running.reverse(),
    "a sequence with nothing to compute": lambda s, pool, prefix, rig: rig.requests[1].output_ids.clear(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_schedulers_check_finds(fault: str) -> None:
    rig = running()
    prefix = rig.scheduler._prefix
    assert prefix is not None
    rig.scheduler.check()
    FAULTS[fault](rig.scheduler, rig.scheduler._pool, prefix, rig)
    with pytest.raises(AssertionError):
        rig.scheduler.check()


@pytest.mark.parametrize(
    "change",
    [{"token_id": 99}, {"position": 6}, {"salt": b"other"}, {"finite": False, "writer": 99}],
    ids=str,
)
def test_the_oracle_finds_a_corrupted_slot(change: dict[str, object]) -> None:
    rig = running()
    block = rig.oracle.slots[rig.requests[1].block_ids[1]]
    assert block[1] is not None
    block[1] = replace(block[1], **change)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="sequence 1"):
        rig.step()


def test_the_oracle_finds_a_slot_that_nobody_wrote() -> None:
    rig = running()
    rig.oracle.slots[rig.requests[1].block_ids[0]][0] = None
    with pytest.raises(AssertionError, match="nobody wrote"):
        rig.step()


def misdirect(step: Step, first: dict[str, object]) -> Step:
    return Step((step.slices[0]._replace(**first), *step.slices[1:]))  # type: ignore[arg-type]


def test_the_oracle_finds_a_write_into_another_ones_block() -> None:
    rig = running()
    step = rig.schedule()
    stolen = (step.slices[0].block_ids[0], step.slices[1].block_ids[1])
    with pytest.raises(AssertionError, match="which another one has too"):
        rig.oracle.run(misdirect(step, {"block_ids": stolen}))


@pytest.mark.parametrize(
    "wrong",
    [{"token_ids": (99,)}, {"token_ids": ()}, {"block_ids": ()}, {"sample": None}, {"seq_id": 2}],
    ids=str,
)
def test_the_oracle_finds_a_wrong_slice(wrong: dict[str, object]) -> None:
    rig = running()
    with pytest.raises(AssertionError):
        rig.oracle.run(misdirect(rig.schedule(), wrong))
