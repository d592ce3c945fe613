"""The scheduler: which tokens of which requests are computed next, and what becomes of the result.

Owns the queue, the running set and the life of every `Request`. Policy: first come, first served, within a
budget of tokens per step; long prompts go in chunks; when blocks run out the newest running request gives its
own up and is computed again later. Knows no text, no clock and no tensor. The engine calls `schedule`, runs
the step, and calls `apply`.

One step ahead: a step may be planned while the one before it runs. Every sequence is then taken to go on by the token
that it is drawing, whose id nobody knows yet (`SequenceSlice.late`). Only what does not depend on that id is decided:
where it is, that it is followed by another one, that the last of an output is followed by none. Preemption waits until
all tokens are known. A sequence that turns out to have ended leaves a slice in flight: its token is dropped, and its
blocks are released when that step lands. Blocks are hashed when their ids are known.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from llmcli.errors import EngineError, RequestError
from llmcli.outputs import FinishReason, TokenLogprobs
from llmcli.scheduler.blocks import BlockPool
from llmcli.scheduler.prefix import PrefixCache
from llmcli.scheduler.request import Request, State
from llmcli.scheduler.step import SampledToken, SequenceSlice, Step, StepResult
from llmcli.scheduler.tables import BlockTables

_ORDER = attrgetter("order")
_NOTHING = Step(())
MAX_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Limits of the scheduler; all at least 1.

    Attributes:
        num_blocks, block_size: of the KV cache; block_size in tokens.
        max_num_seqs: most sequences that run at once.
        max_num_batched_tokens: token budget of one step.
        max_model_len: most tokens of one sequence, prompt and output together.
        enable_prefix_caching: keep full blocks for later requests with the same beginning.
    """

    num_blocks: int
    block_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    enable_prefix_caching: bool = True

    def __post_init__(self) -> None:
        for name in ("num_blocks", "block_size", "max_num_seqs", "max_num_batched_tokens", "max_model_len"):
            assert getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}"


class SequenceUpdate(NamedTuple):
    """What a step added to one sequence: a token, or an error.

    `token_id` is None only with an error. A stop or end-of-sequence id is an output token like any other;
    `stop_reason` is the id when the request's own stop_token_ids named it.
    """

    seq_id: int
    token_id: int | None
    logprobs: TokenLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    error: str | None = None


class Scheduler:
    """Plans steps and applies their results in the same order; at most two are in flight.

    Args:
        config: the limits.
        prefix: a prefix cache to use in place of a new one; ignored when the config turns caching off.
    """

    def __init__(self, config: SchedulerConfig, *, prefix: PrefixCache | None = None) -> None:
        self.config = config
        self.num_preemptions = 0
        self._prefix: PrefixCache | None = None
        if config.enable_prefix_caching:
            self._prefix = PrefixCache(config.block_size) if prefix is None else prefix
        self._pool = BlockPool(config.num_blocks, config.block_size, self._prefix)
        self._tables = BlockTables(self._pool, self._prefix)
        self._requests: dict[int, Request] = {}
        self._waiting: list[Request] = []  # this and the next: in order
        self._running: list[Request] = []
        self._in_flight: deque[Step] = deque()
        self._leaving: list[Request] = []  # ended while a step in flight may still write their blocks
        self._first_order = 0  # the orders given so far are _first_order .. _next_order - 1
        self._next_order = 0

    @property
    def has_unfinished(self) -> bool:
        return bool(self._requests)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_blocks_used(self) -> int:
        """Blocks that sequences hold; those kept for the prefix cache alone are not counted."""
        return self._pool.num_held

    @property
    def num_blocks_cached(self) -> int:
        return self._pool.num_cached

    @property
    def prefix_queried_tokens(self) -> int:
        """Prompt tokens of all admitted requests, 0 without a prefix cache."""
        return self._prefix.num_queried_tokens if self._prefix is not None else 0

    @property
    def prefix_hit_tokens(self) -> int:
        """Prompt tokens that the prefix cache served at admission."""
        return self._prefix.num_hit_tokens if self._prefix is not None else 0

    def add(self, request: Request, *, front: bool = False) -> None:
        """Queue a request; with `front`, as if it had come before all others.

        Raises:
            RequestError: it could not be served even alone.
        """
        self.check_fits(request)
        assert request.seq_id not in self._requests, f"sequence {request.seq_id} is here already"
        if front:
            self._first_order -= 1
            request.order = self._first_order
        else:
            request.order = self._next_order
            self._next_order += 1
        self._tables.open(request)
        self._requests[request.seq_id] = request
        insort(self._waiting, request, key=_ORDER)

    def check_fits(self, request: Request) -> None:
        """Refuse what could never run, so that the oldest running request always has a way forward."""
        limit, num_prompt = self.config.max_model_len, len(request.prompt_ids)
        if num_prompt == 0:
            raise RequestError("the prompt has no tokens, at least 1 is needed", param="prompt")
        if num_prompt + 1 > limit:
            raise RequestError(
                f"the prompt has {num_prompt} tokens, at most {limit - 1} fit the context of {limit}",
                fix="shorten the prompt, or raise --max-model-len",
                param="prompt",
            )
        num_tokens = num_prompt + request.max_output_tokens
        assert num_prompt < num_tokens <= limit, "max_output_tokens is not resolved"
        num_blocks = self._pool.blocks_for(num_tokens)
        if num_blocks > self._pool.num_blocks:
            total = self._pool.num_blocks * self._pool.block_size
            raise RequestError(
                f"prompt and output take {num_tokens} tokens ({num_prompt} + {request.max_output_tokens}), "
                f"{num_blocks} blocks; the KV cache has {self._pool.num_blocks} blocks ({total} tokens)",
                fix="lower max_tokens, shorten the prompt, or raise --kv-cache-memory",
                param="max_tokens",
            )

    def abort(self, seq_id: int) -> bool:
        """End a request in any state; False when it is not here (any more, or ever)."""
        return self.finish(seq_id, "abort")

    def finish(self, seq_id: int, reason: FinishReason) -> bool:
        """End a request for a reason found outside, such as a stop string; False when it is not here."""
        request = self._requests.get(seq_id)
        if request is None:
            return False
        self._end(request, reason)
        return True

    def _end(self, request: Request, reason: FinishReason) -> None:
        queue = self._running if request.state is State.RUNNING else self._waiting
        del queue[bisect_left(queue, request.order, key=_ORDER)]
        del self._requests[request.seq_id]
        request.state = State.FINISHED
        request.finish_reason = reason
        if request.num_planned > request.num_computed:
            self._leaving.append(request)
        else:
            self._tables.release(request)

    def schedule(self) -> Step:
        """Plan the next step.

        Empty when there is no work; and while another step is in flight also when this one must wait for its tokens.

        Raises:
            EngineError: two steps are in flight, or no progress is possible (both are defects).
        """
        if len(self._in_flight) == MAX_IN_FLIGHT:
            raise EngineError("internal error: a step was planned while two are in flight")
        slices: list[SequenceSlice] = []
        budget = self._go_on(slices)
        if budget is None:
            for s in slices:
                self._tables.trim(self._requests[s.seq_id])
            return _NOTHING
        slices.extend(self._admit(budget))
        if slices:
            step = Step(tuple(slices))
            for s in slices:
                self._requests[s.seq_id].plan(s)
            self._in_flight.append(step)
            return step
        if self.has_unfinished and not self._in_flight:
            raise EngineError(
                f"internal error: no progress with {self.num_waiting} requests waiting, {self.num_running} "
                f"running; {self._pool.num_available} of {self._pool.num_blocks} blocks are available"
            )
        return _NOTHING

    def _go_on(self, slices: list[SequenceSlice]) -> int | None:
        """Add the next tokens of running requests; the budget that is left, or None: wait for the step in flight."""
        budget = self.config.max_num_batched_tokens
        index = 0
        while index < len(self._running) and budget:
            request = self._running[index]
            index += 1
            num_tokens = min(request.num_unplanned, budget)
            if num_tokens == 0:
                continue  # its last token is being drawn
            if not self._make_room(request, request.num_planned + num_tokens):
                if self._in_flight:
                    return None
                break
            slices.append(request.next_slice(num_tokens))
            budget -= num_tokens
        return budget

    def _make_room(self, request: Request, num_tokens: int) -> bool:
        """Get blocks for a running request, from the newest ones if need be.

        Running requests are served in order, so a victim is never in the step already. False when it was itself that;
        or when a step is in flight, for then the newest one may be computing.
        """
        while not self._tables.grow(request, num_tokens):
            if self._in_flight:
                return False
            if self._preempt_newest() is request:
                return False
        return True

    def _preempt_newest(self) -> Request:
        victim = self._running.pop()
        self._tables.release(victim)
        victim.state = State.WAITING
        victim.num_preemptions += 1
        self.num_preemptions += 1
        insort(self._waiting, victim, key=_ORDER)
        return victim

    def _admit(self, budget: int) -> Iterator[SequenceSlice]:
        """Start waiting requests in order while seats, budget and blocks last; none overtakes another."""
        while self._waiting and budget and len(self._running) < self.config.max_num_seqs:
            request = self._waiting[0]
            if not self._tables.admit(request):
                return
            num_tokens = min(request.num_unplanned, budget)
            grown = self._tables.grow(request, request.num_planned + num_tokens)
            assert grown, "a request was admitted without the blocks for its tokens"
            del self._waiting[0]
            request.state = State.RUNNING
            insort(self._running, request, key=_ORDER)
            budget -= num_tokens
            yield request.next_slice(num_tokens)

    def apply(self, step: Step, result: StepResult) -> list[SequenceUpdate]:
        """Take in the result of the first step in flight: an update per sampled sequence that is still here.

        Raises:
            EngineError: it is another step's result (a defect).
        """
        if not self._in_flight or self._in_flight[0] is not step:
            raise EngineError("internal error: a result was given for a step that is not in flight")
        self._in_flight.popleft()
        self._release_leaving()
        if [s.seq_id for s in step.slices if s.sample is not None] != [t.seq_id for t in result.tokens]:
            raise EngineError("internal error: the tokens of a result are not those that its step asked for")
        tokens = iter(result.tokens)
        updates: list[SequenceUpdate] = []
        for s in step.slices:
            token = next(tokens) if s.sample is not None else None
            request = self._requests.get(s.seq_id)
            if request is None:
                continue
            request.num_computed = s.end
            if token is not None:
                updates.append(self._take(request, token))
        return updates

    def discard(self) -> None:
        """Forget all steps in flight, which failed or were interrupted: their tokens are computed again.

        They may still run: as long as steps run one after the other, what they write is overwritten before it is read.
        """
        self._in_flight.clear()
        for request in self._running:
            request.rewind(request.num_computed)
            self._tables.trim(request)
        self._release_leaving()

    def _release_leaving(self) -> None:
        """Take back the blocks of requests that have ended and that no step in flight computes."""
        if self._leaving:
            busy = {s.seq_id for step in self._in_flight for s in step.slices}
            gone = [request for request in self._leaving if request.seq_id not in busy]
            self._leaving = [request for request in self._leaving if request.seq_id in busy]
            for request in gone:
                self._tables.release(request)

    def _take(self, request: Request, token: SampledToken) -> SequenceUpdate:
        request.num_pending -= 1
        if not token.finite:
            self._end(request, "error")
            error = f"numerical error: the logits at output position {len(request.output_ids)} are not finite"
            return SequenceUpdate(request.seq_id, None, finish_reason="error", error=error)
        self._tables.register(request)
        request.output_ids.append(token.token_id)
        reason, stop_reason = request.reason_to_stop()
        if reason is not None:
            self._end(request, reason)
        return SequenceUpdate(request.seq_id, token.token_id, token.logprobs, reason, stop_reason)

    def reset_prefix_cache(self) -> bool:
        """Forget cached blocks and hit statistics; does nothing, and says False, while a request runs."""
        if self._running or self._leaving:
            return False
        self._tables.reset_prefix_cache()
        return True

    def check(self) -> None:
        """Assert every invariant of queues, tables, pool and cache; takes time in the size of the pool."""
        self._tables.check([*self._running, *self._leaving])
        in_flight = [s for step in self._in_flight for s in step.slices]
        planned = {s.seq_id: s.end for s in in_flight}
        queues = ((self._waiting, State.WAITING), (self._running, State.RUNNING))
        for queue, state in queues:
            orders = [request.order for request in queue]
            assert orders == sorted(set(orders)), f"the {state.value} requests are out of order: {orders}"
            for request in queue:
                name = f"sequence {request.seq_id}"
                assert self._requests.get(request.seq_id) is request, f"{name} is queued but unknown"
                assert request.state is state, f"{name} is {request.state} in the {state.value} queue"
                assert request.num_computed < request.num_tokens, f"{name} has no token left to compute"
                num_slots = planned.get(request.seq_id, request.num_computed)
                assert request.num_planned == num_slots, (
                    f"{name} is planned to {request.num_planned}, not {num_slots}"
                )
                drawn = sum(s.seq_id == request.seq_id and s.sample is not None for s in in_flight)
                assert request.num_pending == drawn, (
                    f"{name} awaits {request.num_pending} tokens, not {drawn}"
                )
                num_blocks = self._pool.blocks_for(num_slots)
                assert len(request.block_ids) == num_blocks, (
                    f"{name} has {len(request.block_ids)} blocks for {num_slots} slots"
                )
        assert not any(request.num_computed for request in self._waiting), "a waiting request has blocks"
        assert len(self._requests) == len(self._waiting) + len(self._running), "a request is in no queue"
        assert len(self._running) <= self.config.max_num_seqs, "too many requests run"
        assert all(r.seq_id in planned for r in self._leaving), "a request that ended still holds blocks"
