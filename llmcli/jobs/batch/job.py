"""The batch job: requests of a prompt file through one engine, each result written as soon as it is there.

Keeps a bounded number of requests in the engine and steps it until all are done, so memory does not grow
with the file. Knows neither options nor signals: `cli/run_job.py` makes the parts and says when to stop.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from llmcli.errors import EngineError, LLMCliError, RequestError
from llmcli.jobs.batch.input import BadLine
from llmcli.jobs.batch.output import OrderedRecords
from llmcli.jobs.batch.progress import BatchCounts, BatchProgress
from llmcli.jobs.batch.prompts import PromptEncoder
from llmcli.jobs.batch.records import Failure, RecordStyle, Result, format_result
from llmcli.jobs.batch.requests import BatchRequest
from llmcli.outputs import CompletionOutput, RequestOutput, TokenEvent
from llmcli.sampling import MAX_SEED, SamplingParams
from llmcli.text.reasoning import ReasoningSplitter

if TYPE_CHECKING:
    from llmcli.engine.engine import Engine

DRAIN_S = 30.0
HELD_PER_INFLIGHT = 16  # with `ordered`, so many finished records may wait for one slow request


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a batch runs.

    Attributes:
        max_inflight: most requests in the engine, running and waiting; of as many more those that begin
            alike are put side by side.
        sampling: fields given as flags; a line's own are laid over them.
        ordered: write results in the order of the input.
        max_errors: failed requests after which no more are begun; None is any number.
    """

    max_inflight: int
    sampling: Mapping[str, Any] = field(default_factory=dict)
    ordered: bool = False
    style: RecordStyle = field(default_factory=RecordStyle)
    max_errors: int | None = None


@dataclass(slots=True)
class StopSignal:
    """Set from a signal handler: no request is admitted any more, and what has begun may finish."""

    requested: bool = False


class Sink(Protocol):
    """Where records go; see `batch_output.RecordWriter`."""

    def write(self, record: bytes) -> None: ...

    def sync_if_due(self) -> None: ...


@dataclass(slots=True)
class _Prompt:
    """A request of the window, ready for the engine; `place` counts the requests of this run from 0."""

    place: int
    request: BatchRequest
    params: SamplingParams
    prompt_ids: list[int]


@dataclass(slots=True)
class _Open:
    """A request in the engine. `splitters` and `reasoning` are those of its choices; empty for a raw prompt."""

    place: int
    request: BatchRequest
    output: RequestOutput
    seed: int | None
    splitters: list[ReasoningSplitter]
    reasoning: list[str]
    num_reasoning: int = 0
    begun: bool = False

    def take(self, event: TokenEvent) -> None:
        """Add an event to the output, what it has of the reasoning apart."""
        self.begun = True
        self.output.apply(self._without_reasoning(event) if self.splitters else event)

    def _without_reasoning(self, event: TokenEvent) -> TokenEvent:
        splitter = self.splitters[event.index]
        was_inside = splitter.inside
        reasoning, answer = splitter.push(event.text)
        if was_inside or splitter.inside:
            self.num_reasoning += len(event.token_ids)
        if event.finish_reason is not None:
            rest = splitter.finish()
            reasoning, answer = reasoning + rest.reasoning, answer + rest.answer
        self.reasoning[event.index] += reasoning
        return event if answer == event.text else replace(event, text=answer)


class BatchRun:
    """One pass over the requests. `run` is called once.

    Args:
        engine: owned by the caller.
        requests: in the order of the file; read only as far as there is room.
        encoder: turns a request into token ids.
        sink: takes the bytes of each record.
        progress: is told of every step.
    """

    def __init__(
        self,
        engine: "Engine",
        requests: Iterator[BatchRequest | BadLine],
        encoder: PromptEncoder,
        sink: Sink,
        options: BatchOptions,
        progress: BatchProgress,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._requests = requests
        self._encoder = encoder
        self._sink = sink
        self._options = options
        self._progress = progress
        self._clock = clock
        self._ordered = OrderedRecords(sink.write) if options.ordered else None
        self._window: list[_Prompt] = []
        self._open: dict[str, _Open] = {}
        self._num_read = 0
        self._random = random.SystemRandom()

    def run(self, counts: BatchCounts, stop: StopSignal) -> None:
        """Serve all requests, or those that have begun when `stop` is set, for at most 30 s.

        Requests that were stopped leave no record, and with `ordered` neither do those that are held back
        behind one of them. `counts` is kept up to date, also when this raises.

        Raises:
            OutputError, BrokenPipeError: a record could not be written.
            EngineError: the engine died, and there were requests left to add; those in it have failed.
        """
        try:
            self._serve(counts, stop)
        finally:
            num_held = 0 if self._ordered is None else len(self._ordered)
            counts.done -= num_held
        if num_held:
            self._progress.say(
                f"{num_held} finished answers come after one that is missing: they are not written"
            )

    def _serve(self, counts: BatchCounts, stop: StopSignal) -> None:
        deadline: float | None = None
        while True:
            if self._options.max_errors is not None and counts.failed > self._options.max_errors:
                stop.requested = True
            if stop.requested and deadline is None:
                deadline = self._clock() + DRAIN_S
                self._drop_waiting()
            if deadline is None:
                self._admit(counts, stop)
            elif self._clock() > deadline:
                self._drop(list(self._open))
            if not self._open:
                break
            for event in self._engine.step():
                self._apply(event, counts)
            self._sink.sync_if_due()
            self._progress.update(counts, self._engine.stats)

    def _admit(self, counts: BatchCounts, stop: StopSignal) -> None:
        limit = self._options.max_inflight
        while len(self._open) < limit and not stop.requested:
            if self._ordered is not None and len(self._ordered) >= HELD_PER_INFLIGHT * limit and self._open:
                return
            if self._window:
                self._add(self._window.pop(), counts)
            elif not self._fill_window(counts):
                return

    def _fill_window(self, counts: BatchCounts) -> bool:
        """Read as many requests as may be in the engine; False at the end of the file.

        They are sorted by their tokens: those that begin alike follow each other, and the blocks that the
        first of them leaves in the prefix cache serve the next ones before they are evicted.
        """
        for number in range(self._options.max_inflight):
            request = next(self._requests, None)
            if request is None:
                if number == 0:
                    return False
                break
            place = self._num_read
            self._num_read += 1
            if isinstance(request, BadLine):
                failure = Failure("invalid_line", request.message, request.param)
                self._finish(place, Result(request, failure=failure), counts)
            else:
                self._prepare(place, request, counts)
        self._window.sort(
            key=lambda prompt: (prompt.prompt_ids, prompt.place), reverse=True
        )  # the last goes first
        return True

    def _prepare(self, place: int, request: BatchRequest, counts: BatchCounts) -> None:
        try:
            params = self._engine.default_params(**{**self._options.sampling, **request.sampling})
            if params.seed is None and not params.greedy:
                params = params.replace(seed=self._random.randint(0, MAX_SEED))
            prompt_ids = self._encoder.encode(request)
            if params.structured is not None:
                params = params.replace(
                    structured=self._encoder.placed(params.structured, request, prompt_ids)
                )
        except LLMCliError as error:
            self._refuse(place, request, error, counts)
        else:
            self._window.append(_Prompt(place, request, params, prompt_ids))

    def _add(self, prompt: _Prompt, counts: BatchCounts) -> None:
        place, request, params = prompt.place, prompt.request, prompt.params
        try:
            request_id = self._engine.add(prompt.prompt_ids, params, request_id=str(request.index))
        except EngineError:
            raise
        except LLMCliError as error:
            self._refuse(place, request, error, counts)
            return
        outputs = [CompletionOutput(i) for i in range(params.n)]
        output = RequestOutput(request_id, None, prompt.prompt_ids, outputs)
        splitters = self._encoder.splitters(request, prompt.prompt_ids, params.n)
        self._open[request_id] = _Open(place, request, output, params.seed, splitters, [""] * len(splitters))

    def _refuse(self, place: int, request: BatchRequest, error: LLMCliError, counts: BatchCounts) -> None:
        param = error.param if isinstance(error, RequestError) else None
        failure = Failure("invalid_request", str(error).replace("\n", "; "), param, status=400)
        self._finish(place, Result(request, failure=failure), counts)

    def _apply(self, event: TokenEvent, counts: BatchCounts) -> None:
        entry = self._open.get(event.request_id)
        if entry is None:  # one that was dropped
            return
        entry.take(event)
        if not entry.output.finished:
            return
        del self._open[event.request_id]
        result = Result(
            entry.request,
            entry.output,
            _failure(entry.output),
            entry.seed,
            tuple(entry.reasoning),
            entry.num_reasoning,
        )
        self._finish(entry.place, result, counts)

    def _finish(self, place: int, result: Result, counts: BatchCounts) -> None:
        record = format_result(result, self._options.style)
        if self._ordered is not None:
            self._ordered.add(place, record)
        else:
            self._sink.write(record)
        counts.add(result)

    def _drop_waiting(self) -> None:
        """Give up what has produced nothing yet, so that only begun answers are waited for."""
        waiting = [request_id for request_id, entry in self._open.items() if not entry.begun]
        self._drop(waiting)
        if self._open:
            self._progress.say(
                f"stopping: {len(self._open)} running requests may finish, for at most {DRAIN_S:.0f} s;"
                " Ctrl-C again stops now"
            )

    def _drop(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self._engine.abort(request_id)
            del self._open[request_id]


def _failure(output: RequestOutput) -> Failure | None:
    for choice in output.outputs:
        if choice.finish_reason == "error" or choice.error is not None:
            return Failure("generation_failed", choice.error or "the engine gave no reason", status=500)
        if choice.finish_reason == "abort":
            return Failure("generation_failed", "the engine aborted the request", status=500)
    return None
