"""One answer, from the conversation to the view: encode, fit, submit, stream, and stop on Ctrl-C.

Knows no prompt, no command and no colour. Used by the chat session and by the single answer.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcli.outputs import FinishReason, RequestStats, TokenEvent
from llmcli.ui.backend import LocalBackend
from llmcli.ui.conversation import Conversation
from llmcli.ui.interrupt import StopRequest
from llmcli.ui.status import count, used_tokens
from llmcli.ui.view import View

if TYPE_CHECKING:
    from llmcli.engine.stream import Stream
    from llmcli.text.reasoning import ReasoningSplitter, Split

SEED_BITS = 31


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as far as it came, and why it ended.

    Attributes:
        reasoning: what the model thought before it, without the marks around it.
    """

    text: str
    finish_reason: FinishReason
    error: str | None
    stats: RequestStats | None
    reasoning: str = ""

    @property
    def complete(self) -> bool:
        """Whether the model ended it, or a limit did; not the user and not a failure."""
        return self.finish_reason in ("stop", "length")


def ask(
    backend: LocalBackend,
    conversation: Conversation,
    overrides: Mapping[str, Any],
    view: View,
    on_dropped: Callable[[int], None],
) -> Answer:
    """Answer the open turn of a conversation, and close it with what came.

    Ctrl-C stops the answer; its finish reason is then "abort".

    Args:
        overrides: sampling fields that go on top of the model's defaults.
        on_dropped: is called with the number of old turns that had to be left out, before the answer begins.

    Raises:
        RequestError: the question can not be asked (too long, refused by the template); the turn is still
        open.
        EngineError: the engine is gone.
    """
    max_model_len = backend.config.max_model_len
    if not backend.remembers:
        conversation.num_dropped = len(conversation.turns) - 1
    with StopRequest() as stop:
        params = backend.params(overrides)
        prompt = conversation.fit(backend.encode, max_model_len, params.max_tokens)
        if prompt.num_dropped:
            on_dropped(prompt.num_dropped)
        stream = backend.submit(prompt.token_ids, params)
        stop.call(stream.abort)
        answer = _receive(stream, view, backend.splitter(prompt.token_ids))
        used = used_tokens(answer.stats) if answer.stats is not None else len(prompt.token_ids)
        conversation.add_answer(
            answer.text, stopped=not answer.complete, used_tokens=used, reasoning=answer.reasoning
        )
    return answer


def _receive(stream: "Stream", view: View, splitter: "ReasoningSplitter") -> Answer:
    """Show the events of a stream until the terminal one."""
    events: Iterable[TokenEvent] = stream
    reasoning: list[str] = []
    pieces: list[str] = []

    def show(split: "Split", num_tokens: int) -> None:
        if split.reasoning or num_tokens:
            reasoning.append(split.reasoning)
            view.think(split.reasoning, num_tokens)
        pieces.append(split.answer)
        view.push(split.answer)

    try:
        for event in events:
            was_inside = splitter.inside
            split = splitter.push(event.text)
            show(split, len(event.token_ids) if was_inside or splitter.inside else 0)
        show(splitter.finish(), 0)
    except BaseException:
        stream.abort()
        raise
    finally:
        view.close()  # what came is shown whole, however it ended
    assert event.finish_reason is not None, "a stream ended without its terminal event"
    text = "".join(pieces)
    return Answer(text, event.finish_reason, event.error, event.stats, "".join(reasoning))


def cut_notice(answer: Answer, max_model_len: int) -> str:
    """Why an answer ended before its time; empty when it did not."""
    if answer.finish_reason != "length" or answer.stats is None:
        return ""
    if used_tokens(answer.stats) >= max_model_len:
        return f"the answer was cut: the context of {count(max_model_len)} tokens is full"
    return f"the answer was cut at max_tokens {count(answer.stats.num_output_tokens)}"


def dropped_notice(num_dropped: int, max_model_len: int) -> str:
    """That old turns were left out to make room."""
    turns = (
        "the oldest turn no longer fits"
        if num_dropped == 1
        else f"the {num_dropped} oldest turns no longer fit"
    )
    return f"{turns} the context of {count(max_model_len)} tokens: left out from here on"


def new_seed() -> int:
    """A seed drawn from the system, short enough to be typed again."""
    return secrets.randbits(SEED_BITS)
