"""One question, one answer: for a prompt on the command line or through a pipe.

The answer goes to `out`, everything else to the notes. Knows no prompt and no command.
"""

from collections.abc import Callable

from llmcli.errors import EngineError
from llmcli.ui.answer import ask, cut_notice, dropped_notice
from llmcli.ui.state import ChatState
from llmcli.ui.status import stats_line
from llmcli.ui.view import View


def answer_once(state: ChatState, text: str, new_view: Callable[[], View]) -> None:
    """Answer `text`.

    Raises:
        RequestError: the prompt does not fit the context.
        EngineError: the request failed.
        KeyboardInterrupt: Ctrl-C, after what came of the answer was printed.
    """
    backend = state.backend()
    max_model_len = backend.config.max_model_len
    state.conversation.add_user(text)
    answer = ask(
        backend,
        state.conversation,
        state.parameters.overrides,
        new_view(),
        lambda num_dropped: state.notes.warn(dropped_notice(num_dropped, max_model_len)),
    )
    if answer.finish_reason == "abort":
        raise KeyboardInterrupt
    if answer.finish_reason == "error":
        raise EngineError(f"the answer failed: {answer.error or 'unknown error'}")
    notice = cut_notice(answer, max_model_len)
    if notice:
        state.notes.warn(notice)
    if state.show_stats and answer.stats is not None:
        state.notes.dim(stats_line(answer.stats, max_model_len))
