"""Thousands of random steps: add, abort, finish, fail, preempt, discard, each checked by the oracle.

A request's output must equal its solo output whatever ran beside it, and whether or not each step is planned before
the tokens of the one before are known; `Scheduler.check` runs after every move. A failure names the case; its seed
makes it come back.
"""

import random
from collections import deque
from dataclasses import dataclass, field, replace

import pytest

from llmcli.outputs import FinishReason
from llmcli.sampling import SamplingParams
from llmcli.scheduler.prefix import PrefixCache, sha256_digest
from llmcli.scheduler.request import Request, State, output_room, stop_ids
from llmcli.scheduler.scheduler import Scheduler, SchedulerConfig, SequenceUpdate
from llmcli.scheduler.step import Step, StepResult
from tests.fakes import VOCAB_SIZE, OracleRunner, solo_output

EOS_IDS = (0, 1)
MAX_BLOCKS_PER_SEQUENCE = 6
STEPS_PER_CASE = 500


@dataclass(frozen=True, slots=True)
class Case:
    seed: int
    block_size: int
    num_blocks: int
    budget: int
    caching: bool = True
    max_num_seqs: int = 10
    fronts: bool = False
    ahead: bool = False

    def __str__(self) -> str:
        cache = "cache" if self.caching else "nocache"
        ahead = "-ahead" if self.ahead else ""
        return f"seed{self.seed}-B{self.block_size}-pool{self.num_blocks}-budget{self.budget}-{cache}{ahead}"


SMALL_POOL, LARGE_POOL = MAX_BLOCKS_PER_SEQUENCE + 1, 5 * MAX_BLOCKS_PER_SEQUENCE
CASES = [
    Case(seed=seed, block_size=block_size, num_blocks=num_blocks, budget=budget, caching=caching)
    for seed, (block_size, num_blocks, budget, caching) in enumerate(
        (block_size, num_blocks, budget, caching)
        for block_size in (4, 16)
        for num_blocks in (SMALL_POOL, 2 * SMALL_POOL, LARGE_POOL)
        for budget in (1, 7, 16, 64)
        for caching in (True, False)
    )
]


@dataclass(slots=True)
class Machine:
    """A scheduler and an oracle, driven at random."""

    case: Case
    prefix: PrefixCache | None = None
    rng: random.Random = field(init=False)
    scheduler: Scheduler = field(init=False)
    oracle: OracleRunner = field(init=False)
    requests: dict[int, Request] = field(default_factory=dict)
    outputs: dict[int, list[int]] = field(default_factory=dict)
    live: set[int] = field(default_factory=set)
    first_tokens: list[int] = field(default_factory=list)
    in_flight: deque[tuple[Step, StepResult]] = field(default_factory=deque)
    num_late: int = 0
    num_steps: int = 0
    num_errors: int = 0

    def __post_init__(self) -> None:
        case = self.case
        self.rng = random.Random(case.seed)
        config = SchedulerConfig(
            num_blocks=case.num_blocks,
            block_size=case.block_size,
            max_num_seqs=case.max_num_seqs,
            max_num_batched_tokens=case.budget,
            max_model_len=MAX_BLOCKS_PER_SEQUENCE * case.block_size,
            enable_prefix_caching=case.caching,
        )
        self.scheduler = Scheduler(config, prefix=self.prefix)
        self.oracle = OracleRunner(case.num_blocks, case.block_size)

    def prompt(self) -> tuple[int, ...]:
        """A path in a small tree of prefixes, cut near the edge of a block."""
        size, rng = self.case.block_size, self.rng
        depth = rng.randint(1, MAX_BLOCKS_PER_SEQUENCE - 1)
        branches = [rng.choice((2, 2, 2, 3)) for _ in range(depth)]
        path = [token for branch in branches for token in [branch] * (size - 1) + [branch + 2]]
        return tuple(
            path[: max(1, len(path) - rng.choice((0, 0, 1, 2, size - 1, size)) + rng.choice((0, 0, 1)))]
        )

    def params(self) -> SamplingParams:
        rng = self.rng
        max_tokens = rng.choice((1, 2, self.case.block_size, 2 * self.case.block_size, None))
        penalised = self.case.ahead and rng.random() < 0.05  # it has the steps wait, of all that run
        return SamplingParams(
            max_tokens=max_tokens,
            min_tokens=min(rng.choice((0, 0, 3, 9)), max_tokens or VOCAB_SIZE),
            stop_token_ids=rng.choice(((), (), (5,), (1, 7))),
            ignore_eos=rng.random() < 0.7,
            presence_penalty=float(penalised),
        )

    def add(self) -> None:
        rng, seq_id, prompt, params = self.rng, len(self.requests), self.prompt(), self.params()
        request = Request(
            seq_id=seq_id,
            prompt_ids=prompt,
            params=params,
            seed=rng.randrange(3),
            choice=rng.randrange(2),
            max_output_tokens=output_room(params, len(prompt), self.scheduler.config.max_model_len),
            stop_ids=stop_ids(params, EOS_IDS),
            cache_salt=rng.choice((b"", b"", b"adapter")),
        )
        self.scheduler.add(request, front=self.case.fronts and rng.random() < 0.2)
        bad_position = rng.randrange(len(prompt) + 8) if rng.random() < 0.1 else None
        self.oracle.expect(seq_id, prompt, salt=request.cache_salt, bad_position=bad_position)
        self.requests[seq_id], self.outputs[seq_id] = request, []
        self.live.add(seq_id)

    def solo(self, request: Request) -> list[int]:
        return solo_output(
            request.prompt_ids,
            request.params,
            seed=request.seed,
            choice=request.choice,
            max_output_tokens=request.max_output_tokens,
            stop_ids=request.stop_ids,
            salt=request.cache_salt,
        )

    def end_one(self) -> None:
        """Cancel a request, or end it as a stop string would."""
        if not self.live:
            return
        self.end(self.rng.choice(sorted(self.live)), self.rng.choice(("abort", "stop")))

    def end(self, seq_id: int, reason: FinishReason) -> None:
        """It is finished for a reason found outside of the scheduler."""
        assert self.scheduler.finish(seq_id, reason)
        assert not self.scheduler.abort(seq_id)
        self.has_ended(seq_id, reason, whole=False)

    def has_ended(self, seq_id: int, reason: str, *, whole: bool) -> None:
        """Its output is that of its solo run, or the beginning of it."""
        request, output = self.requests[seq_id], self.outputs[seq_id]
        solo = self.solo(request)
        assert output == (solo if whole else solo[: len(output)])
        assert request.output_ids == output
        assert request.state is State.FINISHED
        assert request.finish_reason == reason
        self.live.remove(seq_id)

    def take(self, update: SequenceUpdate) -> None:
        seq_id = update.seq_id
        assert seq_id in self.live
        if update.token_id is not None:
            if not self.outputs[seq_id]:
                self.first_tokens.append(seq_id)
            self.outputs[seq_id].append(update.token_id)
        if update.finish_reason is not None:
            self.num_errors += update.finish_reason == "error"
            self.has_ended(seq_id, update.finish_reason, whole=update.finish_reason != "error")

    def schedule(self) -> Step:
        before = [r for r in self.requests.values() if r.state is State.RUNNING]
        step = self.scheduler.schedule()
        self.scheduler.check()
        assert step.slices or self.in_flight
        self.num_late += sum(s.late for s in step.slices)
        assert self.in_flight or not any(s.late for s in step.slices)
        assert step.num_tokens <= self.case.budget
        assert len(step.slices) <= self.case.max_num_seqs
        preempted = [r.order for r in before if r.state is State.WAITING]
        running = [r.order for r in before if r.state is State.RUNNING]
        assert not preempted or max(running) < min(preempted), "the victims are not the newest"
        return step

    def step(self) -> None:
        """Start all steps that may run, and take in the first; now and then a request ends meanwhile, or all fail."""
        while self.scheduler.has_unfinished and len(self.in_flight) <= self.case.ahead:
            step = self.schedule()
            if not step.slices:
                break
            self.num_steps += 1
            self.in_flight.append((step, self.oracle.run(step)))
        if self.rng.random() < 0.02:
            self.end_one()
            self.scheduler.check()
        if self.rng.random() < 0.01:
            self.discard()
        if self.in_flight:
            step, result = self.in_flight.popleft()
            for update in self.scheduler.apply(step, result):
                self.take(update)
                if update.seq_id in self.live and self.rng.random() < 0.005:  # a stop string
                    self.end(update.seq_id, "stop")
        self.scheduler.check()

    def discard(self) -> None:
        self.scheduler.discard()
        self.in_flight.clear()
        for seq_id in self.live:
            self.oracle.rewind(seq_id, len(self.outputs[seq_id]))

    def run(self, num_steps: int) -> None:
        rng = self.rng
        while self.num_steps < num_steps:
            if len(self.live) < 14 and (not self.live or rng.random() < 0.3):
                for _ in range(rng.choice((1, 1, 1, 4))):
                    self.add()
            if rng.random() < 0.02:
                self.end_one()
            if rng.random() < 0.02:
                self.scheduler.reset_prefix_cache()
            self.scheduler.check()
            self.step()
        while self.scheduler.has_unfinished:
            self.step()
        self.discard()

    def ends_clean(self) -> None:
        scheduler = self.scheduler
        assert not self.live
        assert (scheduler.num_running, scheduler.num_waiting, scheduler.num_blocks_used) == (0, 0, 0)
        in_order = self.first_tokens == sorted(self.first_tokens)
        assert in_order or self.case.fronts, "first tokens are not in order of arrival"
        assert all(r.num_cached_tokens < len(r.prompt_ids) for r in self.requests.values())
        assert scheduler.reset_prefix_cache()
        assert scheduler.num_blocks_cached == 0
        scheduler.check()


FRONT_CASES = [
    Case(seed=seed, block_size=4, num_blocks=num_blocks, budget=16, fronts=True)
    for seed, num_blocks in enumerate((SMALL_POOL, 2 * SMALL_POOL), start=100)
]

AHEAD_CASES = [replace(case, seed=case.seed + 1000, ahead=True) for case in [*CASES, *FRONT_CASES]]


@pytest.mark.parametrize("case", [*CASES, *FRONT_CASES, *AHEAD_CASES], ids=str)
def test_every_output_equals_the_solo_run(case: Case) -> None:
    machine = Machine(case)
    machine.run(STEPS_PER_CASE)
    machine.ends_clean()
    assert machine.num_errors > 0 or case.budget == 1
    if case.num_blocks == SMALL_POOL and case.budget > 1:
        assert machine.scheduler.num_preemptions > 0
    assert any(r.num_cached_tokens for r in machine.requests.values()) == case.caching
    assert (machine.num_late > 0) == case.ahead


@pytest.mark.parametrize("cases", [CASES, AHEAD_CASES], ids=["one at a time", "one ahead"])
def test_the_random_runs_make_twenty_thousand_steps(cases: list[Case]) -> None:
    assert len(cases) * STEPS_PER_CASE >= 20_000


HASHES = {
    "constant": lambda data: b"same for all",
    "one byte": lambda data: sha256_digest(data)[:1],
    "two bits": lambda data: bytes([sha256_digest(data)[0] & 3]),
}


@pytest.mark.parametrize("name", HASHES)
@pytest.mark.parametrize("seed", range(4))
def test_colliding_hashes_cost_hits_and_never_change_an_output(name: str, seed: int) -> None:
    case = Case(seed=seed, block_size=4, num_blocks=2 * SMALL_POOL, budget=16)
    prefix = PrefixCache(case.block_size, HASHES[name])
    machine = Machine(case, prefix=prefix)
    machine.run(300)
    assert prefix.num_queried_tokens > 0
    machine.ends_clean()
