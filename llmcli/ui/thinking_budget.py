"""An answer whose reasoning is closed when it has taken so many tokens, so that the answer itself begins.

The request is ended, and another goes on: the same prompt, the reasoning so far and the mark that closes it. The prefix
cache makes this cheap. Knows streams and ids, no tokenizer and no screen. Made by `LocalBackend`, read by `answer.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from llmcli.errors import RequestError
from llmcli.outputs import RequestStats, TokenEvent
from llmcli.sampling import SamplingParams
from llmcli.text.reasoning import ReasoningSplitter
from llmcli.ui.answer_stream import AnswerStream

Start = Callable[[Sequence[int], SamplingParams], AnswerStream]


@dataclass(frozen=True, slots=True)
class ThinkingBudget:
    """So many tokens of reasoning.

    Attributes:
        on_cut: is called when they are used up, before the answer goes on.
    """

    num_tokens: int
    on_cut: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Closing:
    """What closes the reasoning: its mark with the lines around it, and the ids of that."""

    text: str
    token_ids: tuple[int, ...]


class BudgetedStream:
    """One answer of one or two requests; to its reader it is one, and its counts are those of both together.

    Args:
        start: begins a request.
        splitter: tells reasoning from answer; for this stream alone.

    Raises:
        LLMCliError: what `start` raises.
    """

    def __init__(
        self,
        start: Start,
        prompt: Sequence[int],
        params: SamplingParams,
        budget: ThinkingBudget,
        splitter: ReasoningSplitter,
        closing: Closing,
    ) -> None:
        self._start = start
        self._prompt = list(prompt)
        self._params = params
        self._budget = budget
        self._splitter = splitter
        self._closing = closing
        self._aborted = False
        self._stream = start(prompt, params)

    def abort(self) -> None:
        """Ask for the end; the terminal event still comes."""
        self._aborted = True
        self._stream.abort()

    def __iter__(self) -> Iterator[TokenEvent]:
        thought: list[int] = []
        events = iter(self._stream)
        for event in events:
            yield event
            if event.finish_reason is not None:
                return
            thought += event.token_ids
            self._splitter.push(event.text)
            if self._splitter.inside and len(thought) >= self._budget.num_tokens:
                break
        self._stream.abort()
        *_, last = events
        if last.finish_reason == "error" or self._aborted:
            yield last
            return
        self._budget.on_cut()
        yield TokenEvent(last.request_id, 0, self._closing.text, ())
        yield from self._go_on(thought, last)

    def _go_on(self, thought: Sequence[int], first: TokenEvent) -> Iterator[TokenEvent]:
        """The answer after the reasoning.

        Args:
            first: the terminal event of the request that made the reasoning.
        """
        added = [*thought, *self._closing.token_ids]
        # counted here: the engine may have computed a token more before it heard of the end
        stats = None if first.stats is None else replace(first.stats, num_output_tokens=len(added))
        params = _less(self._params, len(added))
        try:
            stream = None if params is None else self._start([*self._prompt, *added], params)
        except RequestError:  # the context is full
            stream = None
        if stream is None:
            most = self._params.max_tokens
            if stats is not None and most is not None:
                stats = replace(stats, num_output_tokens=min(len(added), most))
            yield TokenEvent(first.request_id, 0, "", (), finish_reason="length", stats=stats)
            return
        self._stream = stream
        if self._aborted:  # in between: it went to the request before
            stream.abort()
        for event in stream:
            yield replace(event, stats=_joined(stats, event.stats))


def _less(params: SamplingParams, num_tokens: int) -> SamplingParams | None:
    """The same parameters after so many tokens of the answer, which close the reasoning; None where none may follow."""
    if params.max_tokens is not None and params.max_tokens <= num_tokens:
        return None
    form = params.structured
    return replace(
        params,
        # The mark that it waited for is in the prompt now.
        structured=None if form is None else form.at_once(),
        max_tokens=None if params.max_tokens is None else params.max_tokens - num_tokens,
        min_tokens=max(0, params.min_tokens - num_tokens),
    )


def _joined(first: RequestStats | None, second: RequestStats | None) -> RequestStats | None:
    """Both requests as one: the prompt of the second is the first with its answer."""
    if first is None or second is None:
        return second
    return replace(
        first,
        num_output_tokens=first.num_output_tokens + second.num_output_tokens,
        total_s=first.total_s + second.total_s,
    )
