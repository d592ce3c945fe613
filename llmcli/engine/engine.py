"""The engine: requests go in, tokens come out as events, one forward pass at a time.

Owns the loop and what ties a user's request to its sequences: detokenizers, clocks, choices. The scheduler decides
what runs, the runner runs it. Single-threaded: call it from one thread, or through `engine/stream.py`.

With `config.async_scheduling` the next step is planned and started before the present one's result is waited for: a
GPU then goes from step to step by itself, while text is made here of what the step before has drawn.
"""

import itertools
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmcli.config import ResolvedConfig
from llmcli.engine.choice import Choice
from llmcli.engine.constraints import Constraints
from llmcli.errors import EngineError, LLMCliError, RequestError, quote
from llmcli.hub.models import LocalModel
from llmcli.model.spec import ModelSpec
from llmcli.outputs import FinishReason, TokenEvent
from llmcli.runtime.runner import Draw, Runner, Wait
from llmcli.sampling import SamplingParams, check_names
from llmcli.scheduler.request import Request, output_room, stop_ids
from llmcli.scheduler.scheduler import Scheduler, SequenceUpdate
from llmcli.scheduler.step import Step
from llmcli.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Where the engine stands; tokens and counts since it was built.

    Attributes:
        kv_usage: share of the KV cache's blocks that running sequences hold, 0..1.
        prefix_queries, prefix_hits: prompt tokens looked up in the prefix cache, and found.
    """

    num_running: int
    num_waiting: int
    kv_usage: float
    prefix_queries: int
    prefix_hits: int
    num_preemptions: int
    num_steps: int
    prompt_tokens: int
    output_tokens: int


@dataclass(slots=True)
class _OpenRequest:
    """A user's request while any of its choices runs.

    `held` are the choices after the first: they join once the first has computed the prompt, and share its blocks.
    """

    choices: dict[int, Choice]
    held: list[Request] = field(default_factory=list)


class Engine:
    """One model with its KV cache; see `engine/build.py` for how it is made.

    Attributes:
        generation_defaults: sampling fields that the model's generation_config.json sets.
        eos_ids: the ids that end a sequence.
    """

    def __init__(
        self,
        *,
        model: LocalModel,
        spec: ModelSpec,
        config: ResolvedConfig,
        tokenizer: Tokenizer,
        scheduler: Scheduler,
        runner: Runner,
        generation_defaults: Mapping[str, Any],
        eos_ids: frozenset[int],
    ) -> None:
        self.model = model
        self.spec = spec
        self.config = config
        self.tokenizer = tokenizer
        self.generation_defaults = generation_defaults
        self.eos_ids = eos_ids
        self._scheduler = scheduler
        self._runner = runner
        self._in_flight: deque[tuple[Step, Wait]] = deque()
        self._undrawn: tuple[Step, Draw] | None = None  # begun last; it draws when masks are known
        self._constraints = Constraints(tokenizer, spec.vocab_size, eos_ids)
        self._seeds = random.Random(config.seed)
        self._seq_ids = itertools.count()
        self._requests: dict[str, _OpenRequest] = {}
        self._by_sequence: dict[int, Choice] = {}
        self._pending: list[TokenEvent] = []
        self._failure: str | None = None
        self._num_steps = 0
        self._prompt_tokens = 0
        self._output_tokens = 0

    def default_params(self, **overrides: Any) -> SamplingParams:
        """The model's defaults with the given fields on top; None leaves a default.

        Raises:
            RequestError: an unknown field, or a value out of range.
        """
        check_names(overrides)
        given = {name: value for name, value in overrides.items() if value is not None}
        return SamplingParams(**{**self.generation_defaults, **given})

    def check(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> None:
        """Raise what `add` would raise, without adding.

        Raises:
            RequestError: an empty or too long prompt, a token id that the model does not have, or a form of the answer
                that can not be followed.
            EngineError: the engine has died.
        """
        if self._failure is not None:
            raise EngineError(self._failure)
        vocab = self.spec.vocab_size
        for name, ids in (
            ("prompt", prompt_token_ids),
            ("stop_token_ids", params.stop_token_ids),
            ("logit_bias", params.logit_bias),
        ):
            for position, token_id in enumerate(ids):
                if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < vocab:
                    raise RequestError(
                        f"{name}: token id {quote(token_id)} at index {position} is not in 0..{vocab - 1}",
                        param=name,
                    )
        self._scheduler.check_fits(self._request(tuple(prompt_token_ids), params, 0, 0))
        self._constraints.check(params)

    def add(
        self, prompt_token_ids: Sequence[int], params: SamplingParams, *, request_id: str | None = None
    ) -> str:
        """Queue a request; it joins the batch at the next step.

        Returns:
            Its id, which its events carry.

        Raises:
            RequestError, EngineError: see `check`; also for an id that is in use.
        """
        self.check(prompt_token_ids, params)
        prompt_ids = tuple(prompt_token_ids)
        seed = self._seeds.getrandbits(63) if params.seed is None else params.seed
        requests = [self._request(prompt_ids, params, seed, index) for index in range(params.n)]
        request_id = f"request-{requests[0].seq_id}" if request_id is None else request_id
        if request_id in self._requests:
            raise RequestError(f"request id {quote(request_id)} is in use", param="request_id")
        now = time.monotonic()
        choices = {r.seq_id: Choice(request_id, r, self.tokenizer, now) for r in requests}
        for request in requests:
            self._constraints.open(request.seq_id, params)
        self._requests[request_id] = _OpenRequest(choices)
        self._by_sequence.update(choices)
        self._prompt_tokens += len(prompt_ids)
        self._scheduler.add(requests[0])
        if self.config.enable_prefix_caching:
            self._requests[request_id].held = requests[1:]
        else:
            for request in requests[1:]:
                self._scheduler.add(request)
        return request_id

    def abort(self, request_id: str) -> None:
        """Stop a request; its terminal events come with the next step. Unknown and finished ids are ignored."""
        request = self._requests.get(request_id)
        if request is None:
            return
        for seq_id in list(request.choices):
            self._scheduler.abort(seq_id)
            self._pending.append(self._close(seq_id, "abort"))

    @property
    def has_work(self) -> bool:
        return bool(self._pending) or bool(self._requests)

    def step(self) -> list[TokenEvent]:
        """Run one forward pass to its end, and start the next one before if steps go ahead.

        Returns:
            What it added. When the pass fails, every open request ends with an error event and the engine is dead.
        """
        events, self._pending = self._pending, []
        try:
            self._draw()
            self._start_steps()
            if not self._in_flight:
                return events
            step, wait = self._in_flight.popleft()
            result = wait()
        except Exception as error:
            self._forget_steps()
            return events + self._fail(error)
        except BaseException:  # Ctrl-C: the tokens of these steps are computed again
            self._forget_steps()
            self._pending = events
            raise
        self._num_steps += 1
        now = time.monotonic()
        for update in self._scheduler.apply(step, result):
            events.append(self._event(update, now))
        if not self._scheduler.has_unfinished:
            self._forget_steps()  # what they compute is for sequences that have ended
        return events

    def _start_steps(self) -> None:
        """Have as many steps in flight as there may be."""
        while self._scheduler.has_unfinished and len(self._in_flight) <= self.config.async_scheduling:
            step = self._scheduler.schedule()
            if not step.slices:
                return  # it depends on what the step in flight draws
            self._mark_started(step)
            self._undrawn = step, self._runner.begin(step)
            if self._constraints.await_tokens(step):
                return  # its logits are computed while the step before tells what it has drawn
            self._draw()

    def _draw(self) -> None:
        """Have the tokens drawn of a step that was only begun."""
        if self._undrawn is not None:
            step, draw = self._undrawn
            self._undrawn = None
            self._in_flight.append((step, draw(self._constraints.constrain(step))))

    def _forget_steps(self) -> None:
        self._undrawn = None
        self._in_flight.clear()
        self._scheduler.discard()

    def stats(self) -> EngineStats:
        scheduler = self._scheduler
        return EngineStats(
            num_running=scheduler.num_running,
            num_waiting=scheduler.num_waiting,
            kv_usage=scheduler.num_blocks_used / self.config.num_blocks,
            prefix_queries=scheduler.prefix_queried_tokens,
            prefix_hits=scheduler.prefix_hit_tokens,
            num_preemptions=scheduler.num_preemptions,
            num_steps=self._num_steps,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
        )

    def reset_prefix_cache(self) -> bool:
        """Forget all cached blocks; False, and nothing happens, while a request runs."""
        return self._scheduler.reset_prefix_cache()

    def close(self) -> None:
        """Abort what is open. The memory goes with the object."""
        for request_id in list(self._requests):
            self.abort(request_id)

    def _request(
        self, prompt_ids: tuple[int, ...], params: SamplingParams, seed: int, choice: int
    ) -> Request:
        return Request(
            seq_id=next(self._seq_ids),
            prompt_ids=prompt_ids,
            params=params,
            seed=seed,
            choice=choice,
            stop_ids=stop_ids(params, self.eos_ids),
            max_output_tokens=output_room(params, len(prompt_ids), self.config.max_model_len),
        )

    def _mark_started(self, step: Step) -> None:
        now = time.monotonic()
        for part in step.slices:
            if part.late:
                continue
            choice = self._by_sequence[part.seq_id]
            if choice.started_at is None:
                choice.started_at = now

    def _event(self, update: SequenceUpdate, now: float) -> TokenEvent:
        choice = self._by_sequence[update.seq_id]
        self._release_held(choice.request_id)
        if update.token_id is None:
            return self._close(update.seq_id, "error", error=update.error)
        self._output_tokens += 1
        matched = choice.take(update, now)
        if update.finish_reason is not None:
            return self._close(update.seq_id, update.finish_reason, update.stop_reason, update.error)
        if matched is not None:
            self._scheduler.finish(update.seq_id, "stop")
            return self._close(update.seq_id, "stop", matched)
        try:
            finished = self._constraints.accept(update.seq_id, update.token_id)
        except RequestError as error:
            self._scheduler.finish(update.seq_id, "error")
            return self._close(update.seq_id, "error", error=error.what)
        if finished:
            self._scheduler.finish(update.seq_id, "stop")
            return self._close(update.seq_id, "stop")
        return choice.event()

    def _release_held(self, request_id: str) -> None:
        """The first choice has computed the prompt: let the others in, before all who came later."""
        request = self._requests[request_id]
        while request.held:
            self._scheduler.add(request.held.pop(), front=True)

    def _close(
        self,
        seq_id: int,
        reason: FinishReason,
        stop_reason: int | str | None = None,
        error: str | None = None,
    ) -> TokenEvent:
        choice = self._by_sequence.pop(seq_id)
        self._constraints.close(seq_id)
        request = self._requests[choice.request_id]
        del request.choices[seq_id]
        request.held = [held for held in request.held if held.seq_id != seq_id]
        if not request.choices:
            del self._requests[choice.request_id]
        return choice.final_event(reason, stop_reason, error, time.monotonic())

    def _fail(self, error: Exception) -> list[TokenEvent]:
        """The forward pass can not be trusted any more: end everything that is open."""
        if isinstance(error, LLMCliError):
            self._failure = "; ".join(filter(None, (f"the engine stopped: {error.what}", error.fix)))
        else:
            self._failure = f"the engine stopped: {type(error).__name__}: {quote(str(error))}"
        events = []
        for seq_id in list(self._by_sequence):
            self._scheduler.finish(seq_id, "error")
            events.append(self._close(seq_id, "error", error=self._failure))
        return events
