"""One answer, from the conversation to the view: encode, fit, submit, stream, and stop on Ctrl-C.

Knows no prompt, no command and no colour. Used by the chat session and by the single answer.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmcli.errors import ContextFullError
from llmcli.outputs import FinishReason, RequestStats, TokenEvent, TokenLogprobs
from llmcli.ui.answer_stream import AnswerStream
from llmcli.ui.backend import Backend
from llmcli.ui.conversation import Conversation, FittedPrompt
from llmcli.ui.interrupt import StopRequest
from llmcli.ui.status import count, used_tokens
from llmcli.ui.thinking_budget import ThinkingBudget
from llmcli.ui.view import View

if TYPE_CHECKING:
    from llmcli.text.reasoning import ReasoningSplitter, Split

SEED_BITS = 31


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as far as it came, and why it ended.

    Attributes:
        text: what the model wrote, without what the answer was made to begin with.
    """

    text: str
    finish_reason: FinishReason
    error: str | None
    stats: RequestStats | None
    reasoning: str = ""
    logprobs: tuple[TokenLogprobs, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the model ended it, or a limit did; not the user and not a failure."""
        return self.finish_reason in ("stop", "length")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """How the open turn of a conversation is to be answered.

    Attributes:
        overrides: sampling fields that go on top of the model's defaults.
        template_kwargs: variables of the chat template.
        thinking_budget: tokens after which the reasoning is closed; None leaves it to the model.
        drop: leave out the oldest turns when the context is full; else that is an error.
        echo: the beginning of the answer that is shown before what the model adds.
        on_dropped: is called with the number of old turns that had to be left out, before the answer begins.
        on_sent: is called with the prompt when it has been given to the model.
    """

    overrides: Mapping[str, Any]
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    thinking_budget: int | None = None
    drop: bool = True
    echo: str = ""
    on_dropped: Callable[[int], None]
    on_sent: Callable[[FittedPrompt], None] = lambda prompt: None


def ask(backend: Backend, conversation: Conversation, view: View, question: Question) -> Answer:
    """Answer the open turn of a conversation, and close it with what came.

    Ctrl-C stops the answer; its finish reason is then "abort".

    Raises:
        RequestError: the question can not be asked (too long, refused by the template); the turn is still
        open.
        EngineError: the engine is gone.
        ServerError, ModelUnavailableError: a server can not be reached, or refuses.
    """
    if not backend.remembers:
        conversation.num_dropped = len(conversation.turns) - 1
    with StopRequest() as stop:
        while True:
            prompt = _fit(backend, conversation, question)
            stream = backend.submit(prompt, question.overrides, _budget(question, view))
            stop.call(stream.abort)
            question.on_sent(prompt)
            try:
                answer = _receive(stream, view, backend.splitter(prompt), question.echo)
            except ContextFullError:
                # Only a server can tell how long its prompt is: the turns go one by one until it fits.
                if not question.drop or prompt.token_ids is not None or not conversation.hide_oldest():
                    raise
                question.on_dropped(1)
                continue
            break
        conversation.add_answer(
            answer.text, answer.finish_reason, reasoning=answer.reasoning, stats=answer.stats
        )
    return answer


def _budget(question: Question, view: View) -> ThinkingBudget | None:
    if question.thinking_budget is None:
        return None
    return ThinkingBudget(question.thinking_budget, on_cut=lambda: view.think("", 0, cut=True))


def _fit(backend: Backend, conversation: Conversation, question: Question) -> FittedPrompt:
    prompt = conversation.fit(
        backend.encode,
        backend.max_model_len,
        backend.params(question.overrides).max_tokens,
        drop=question.drop,
        template_kwargs=question.template_kwargs,
    )
    if prompt.num_dropped:
        question.on_dropped(prompt.num_dropped)
    return prompt


def _receive(stream: AnswerStream, view: View, splitter: "ReasoningSplitter", echo: str) -> Answer:
    """Show the events of a stream until the terminal one, the reasoning apart from the answer."""
    events: Iterable[TokenEvent] = stream
    reasoning: list[str] = []
    pieces: list[str] = []
    logprobs: list[TokenLogprobs] = []

    def show(split: "Split", num_tokens: int) -> None:
        if split.reasoning or num_tokens:
            reasoning.append(split.reasoning)
            view.think(split.reasoning, num_tokens)
        lead = echo if split.answer and not any(pieces) else ""
        pieces.append(split.answer)
        view.push(lead + split.answer)

    begun = False
    try:
        for event in events:
            begun = True
            was_inside = splitter.inside
            split = splitter.push(event.text)
            show(split, len(event.token_ids) if was_inside or splitter.inside else 0)
            logprobs += event.logprobs or ()
        show(splitter.finish(), 0)
        if echo and not any(pieces):
            view.push(echo)
    except BaseException:
        stream.abort()
        raise
    finally:
        if begun:
            view.close()  # what came is shown whole, however it ended
    assert event.finish_reason is not None, "a stream ended without its terminal event"
    return Answer(
        "".join(pieces),
        event.finish_reason,
        event.error,
        event.stats,
        reasoning="".join(reasoning),
        logprobs=tuple(logprobs),
    )


def cut_notice(answer: Answer, max_model_len: int | None) -> str:
    """Why an answer ended before its time; empty when it did not."""
    if answer.finish_reason != "length":
        return ""
    if answer.stats is None:
        return "the answer was cut at a limit of the server"
    if max_model_len is not None and used_tokens(answer.stats) >= max_model_len:
        return f"the answer was cut: the context of {count(max_model_len)} tokens is full"
    return f"the answer was cut at max_tokens {count(answer.stats.num_output_tokens)}"


def dropped_notice(num_dropped: int, max_model_len: int | None) -> str:
    """That old turns were left out to make room."""
    turns = (
        "the oldest turn no longer fits"
        if num_dropped == 1
        else f"the {num_dropped} oldest turns no longer fit"
    )
    context = (
        "the server's context" if max_model_len is None else f"the context of {count(max_model_len)} tokens"
    )
    return f"{turns} {context}: left out from here on"


def new_seed() -> int:
    """A seed drawn from the system, short enough to be typed again."""
    return secrets.randbits(SEED_BITS)
