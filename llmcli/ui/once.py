"""One question, one answer: for a prompt on the command line or through a pipe.

The answer goes to `out`, everything else to the notes. Knows no prompt and no command.
"""

from collections.abc import Callable
from typing import Any

from llmcli.errors import EngineError
from llmcli.ui.answer import Answer, Question, ask, cut_notice, dropped_notice
from llmcli.ui.conversation import FittedPrompt
from llmcli.ui.sessions.records import stats_record
from llmcli.ui.state import ChatState
from llmcli.ui.status import logprob_lines, stats_line
from llmcli.ui.view import View


class SilentView:
    """Shows nothing: the answer is printed another way, once it is whole."""

    def think(self, text: str, num_tokens: int, *, cut: bool = False) -> None:
        """Take the next piece of the reasoning."""

    def push(self, text: str) -> None:
        """Take the next piece."""

    def close(self) -> None:
        """Take the end."""


def answer_once(state: ChatState, text: str, new_view: Callable[[], View]) -> Answer:
    """Answer `text`, with the state's attachments.

    Raises:
        RequestError: the prompt does not fit the context.
        EngineError: the request failed.
        KeyboardInterrupt: Ctrl-C, after what came of the answer was printed.
    """
    backend = state.loaded()
    max_model_len = backend.max_model_len
    state.conversation.add_user("\n\n".join(filter(None, [text, *state.attachments])), state.prefill)

    def on_sent(prompt: FittedPrompt) -> None:
        state.log.record(state.saved())

    question = Question(
        overrides=state.overrides,
        template_kwargs=state.template_kwargs,
        thinking_budget=state.thinking_budget,
        drop=state.drop_turns,
        echo=state.prefill,
        on_dropped=lambda num_dropped: state.notes.warn(dropped_notice(num_dropped, max_model_len)),
        on_sent=on_sent,
    )
    answer = ask(backend, state.conversation, new_view(), question)
    state.log.record(state.saved())
    if answer.finish_reason == "abort":
        raise KeyboardInterrupt
    if answer.finish_reason == "error":
        raise EngineError(f"the answer failed: {answer.error or 'unknown error'}")
    notice = cut_notice(answer, max_model_len)
    if notice:
        state.notes.warn(notice)
    if answer.logprobs and state.num_logprobs is not None:
        state.notes.dim(logprob_lines(answer.logprobs))
    if state.show_stats and answer.stats is not None:
        state.notes.dim(state.notes.fit(stats_line(answer.stats, max_model_len)))
    return answer


def answer_record(state: ChatState, answer: Answer) -> dict[str, Any]:
    """The answer as one JSON object."""
    return {
        "model": state.backend.model.name,
        "revision": state.backend.model.revision,
        "text": state.prefill + answer.text,
        "reasoning": answer.reasoning or None,
        "finish_reason": answer.finish_reason,
        "session": state.log.session_id,
    } | ({} if answer.stats is None else stats_record(answer.stats))
