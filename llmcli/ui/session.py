"""The loop of a chat: read a line, run its command or have it answered, until the user leaves.

Knows no terminal: lines come from a reader, answers go to a view, all else to the notes.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from llmcli.errors import EngineError, LLMCliError
from llmcli.ui.answer import Answer, ask, cut_notice, dropped_notice, new_seed
from llmcli.ui.backend import LocalBackend
from llmcli.ui.commands import Message, Outcome, find_command, parse_input
from llmcli.ui.conversation import Turn
from llmcli.ui.state import ChatState
from llmcli.ui.status import context_use, nearly_full, stats_line, used_tokens
from llmcli.ui.view import View


class Reader(Protocol):
    """Where the user's lines come from."""

    def read(self) -> str:
        """The next message or command.

        Raises:
            EOFError: there is no more.
            KeyboardInterrupt: the user wants to leave at once.
        """
        ...


class ChatSession:
    """One chat from its first message to its last."""

    def __init__(self, state: ChatState, reader: Reader, new_view: Callable[[], View]) -> None:
        self._state = state
        self._reader = reader
        self._new_view = new_view

    def run(self, first_message: str | None = None) -> None:
        """Chat until the user leaves.

        Raises:
            LLMCliError: the model could not be loaded, or the engine is gone.
            KeyboardInterrupt: Ctrl-C twice.
        """
        if first_message is not None:
            self._guard(partial(self._send, first_message))
        while True:
            try:
                text = self._reader.read()
            except EOFError:
                return
            if self._guard(partial(self._handle, text)) is Outcome.EXIT:
                return

    def run_once(self) -> None:
        """Read lines until one of them was a message; the chat ends with its answer."""
        while not self._state.conversation.turns:
            try:
                text = self._reader.read()
            except EOFError:
                return
            if self._guard(partial(self._handle, text)) is Outcome.EXIT:
                return

    def _guard(self, action: Callable[[], Outcome]) -> Outcome:
        """Do what a line asks for; a mistake in it is told, and after a Ctrl-C too the chat goes on."""
        try:
            return action()
        except EngineError:
            raise
        except LLMCliError as error:
            if self._state.backend.failed:
                raise
            self._state.notes.error(error)
        except KeyboardInterrupt:
            if self._state.conversation.awaits_answer:  # the engine did not react to the first Ctrl-C
                raise
            if not self._state.backend.ready:
                self._state.notes.dim("(stopped; the model is still being loaded)")
        return Outcome.GO_ON

    def _handle(self, text: str) -> Outcome:
        line = parse_input(text)
        if line is None:
            return Outcome.GO_ON
        if isinstance(line, Message):
            return self._send(line.text)
        outcome = find_command(line.name).run(self._state, line.argument)
        return self._regenerate() if outcome is Outcome.REGENERATE else outcome

    def _send(self, text: str) -> Outcome:
        backend = self._state.backend()
        self._state.conversation.add_user(text)
        self._answer(backend, self._state.parameters.overrides, previous=None)
        return Outcome.GO_ON

    def _regenerate(self) -> Outcome:
        backend, conversation = self._state.backend(), self._state.conversation
        overrides = {**self._state.parameters.overrides, "seed": new_seed()}
        if backend.params(overrides).greedy:
            self._state.notes.dim("temperature is 0: the same answer is to be expected")
        else:
            self._state.notes.dim(f"seed {overrides['seed']}")
        previous = conversation.turns[-1]
        conversation.regen()
        self._answer(backend, overrides, previous)
        return Outcome.GO_ON

    def _answer(self, backend: LocalBackend, overrides: Mapping[str, Any], previous: Turn | None) -> None:
        """Have the open turn answered; if it can not be asked, the conversation is as it was before."""
        max_model_len = backend.config.max_model_len
        try:
            answer = ask(
                backend,
                self._state.conversation,
                overrides,
                self._new_view(),
                lambda num_dropped: self._state.notes.warn(dropped_notice(num_dropped, max_model_len)),
            )
        except LLMCliError:
            self._state.conversation.cancel(previous)
            raise
        self._tell(answer, max_model_len)

    def _tell(self, answer: Answer, max_model_len: int) -> None:
        """Say how an answer ended, and its numbers."""
        notes = self._state.notes
        if answer.finish_reason == "abort":
            notes.warn("(stopped)")
        elif answer.finish_reason == "error":
            notes.error(EngineError(f"the answer failed: {answer.error or 'unknown error'}"))
        cut = cut_notice(answer, max_model_len)
        if cut:
            notes.warn(cut)
        if answer.stats is None:
            return
        full = nearly_full(used_tokens(answer.stats), max_model_len)
        if self._state.show_stats:
            notes.say(stats_line(answer.stats, max_model_len), "yellow" if full else "dim")
        elif full:
            notes.warn(context_use(used_tokens(answer.stats), max_model_len))
