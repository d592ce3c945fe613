"""Short ways to make requests and to run them through scheduler and oracle, for the tests of this folder."""

from dataclasses import dataclass, field

from llmcli.sampling import SamplingParams
from llmcli.scheduler.prefix import PrefixCache
from llmcli.scheduler.request import Request, output_room
from llmcli.scheduler.scheduler import Scheduler, SchedulerConfig, SequenceUpdate
from llmcli.scheduler.step import Step
from tests.fakes import OracleRunner

MAX_MODEL_LEN = 64


def tokens(count: int, first: int = 2) -> tuple[int, ...]:
    """A prompt of `count` tokens; another `first` gives one without a common prefix."""
    return tuple((first + i) % 30 for i in range(count))


def request(
    seq_id: int,
    prompt: tuple[int, ...] = tokens(5),
    *,
    max_tokens: int = 4,
    stop_ids: tuple[int, ...] = (),
    salt: bytes = b"",
    **params: object,
) -> Request:
    sampling = SamplingParams(max_tokens=max_tokens, **params)  # type: ignore[arg-type]
    return Request(
        seq_id=seq_id,
        prompt_ids=prompt,
        params=sampling,
        seed=7,
        max_output_tokens=output_room(sampling, len(prompt), MAX_MODEL_LEN),
        stop_ids=frozenset(stop_ids),
        cache_salt=salt,
    )


@dataclass(slots=True)
class Rig:
    """A scheduler with an oracle; `check` runs after every move."""

    num_blocks: int = 32
    block_size: int = 4
    max_num_seqs: int = 8
    budget: int = 64
    caching: bool = True
    max_model_len: int = MAX_MODEL_LEN
    prefix: PrefixCache | None = None
    scheduler: Scheduler = field(init=False)
    oracle: OracleRunner = field(init=False)
    requests: dict[int, Request] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = SchedulerConfig(
            num_blocks=self.num_blocks,
            block_size=self.block_size,
            max_num_seqs=self.max_num_seqs,
            max_num_batched_tokens=self.budget,
            max_model_len=self.max_model_len,
            enable_prefix_caching=self.caching,
        )
        self.scheduler = Scheduler(config, prefix=self.prefix)
        self.oracle = OracleRunner(self.num_blocks, self.block_size)

    def add(self, *requests: Request, front: bool = False, bad_position: int | None = None) -> None:
        for each in requests:
            self.scheduler.add(each, front=front)
            self.requests[each.seq_id] = each
            self.oracle.expect(each.seq_id, each.prompt_ids, salt=each.cache_salt, bad_position=bad_position)

    def schedule(self) -> Step:
        step = self.scheduler.schedule()
        self.scheduler.check()
        return step

    def apply(self, step: Step) -> list[SequenceUpdate]:
        updates = self.scheduler.apply(step, self.oracle.run(step))
        self.scheduler.check()
        return updates

    def step(self) -> dict[int, int]:
        """One whole step of some work; says how many tokens of each sequence it computed, in order."""
        step = self.schedule()
        assert step.slices, "nothing is left to do"
        self.apply(step)
        return {s.seq_id: len(s.token_ids) for s in step.slices}

    def drain(self) -> None:
        while self.scheduler.has_unfinished:
            self.step()

    def run(self, *requests: Request) -> list[list[int]]:
        self.add(*requests)
        self.drain()
        return [each.output_ids for each in requests]
