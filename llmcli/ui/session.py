"""The loop of a chat: read a line, run its command or have it answered, until the user leaves.

Knows no terminal: lines come from a reader, answers go to a view, all else to the notes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from llmcli.errors import EngineError, LLMCliError, OutputError
from llmcli.ui.answer import Answer, Question, ask, cut_notice, dropped_notice, new_seed
from llmcli.ui.backend import Backend
from llmcli.ui.commands.command import Outcome
from llmcli.ui.commands.table import Message, as_input, find_command, parse_input
from llmcli.ui.conversation import FittedPrompt, Turn
from llmcli.ui.state import ChatState
from llmcli.ui.status import context_use, logprob_lines, nearly_full, stats_line, used_tokens
from llmcli.ui.view import View

BLOCK_END = "/end"
MAX_TAIL = 60


class Reader(Protocol):
    """Where the user's lines come from."""

    def read(self, text: str = "") -> str:
        """The next message or command.

        Args:
            text: stands in the prompt already, to be edited.

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
                text = self._read()
            except EOFError:
                return
            if self._guard(partial(self._handle, text)) is Outcome.EXIT:
                return

    def run_once(self) -> None:
        """Read lines until one of them was a message; the chat ends with its answer."""
        answers = self._state.totals.answers
        while self._state.totals.answers == answers:
            try:
                text = self._read()
            except EOFError:
                return
            if self._guard(partial(self._handle, text)) is Outcome.EXIT:
                return

    def _read(self) -> str:
        draft, self._state.draft = self._state.draft, ""
        return self._reader.read(as_input(draft)) if draft else self._reader.read()

    def _guard(self, action: Callable[[], Outcome]) -> Outcome:
        """Do what a line asks for; a mistake in it is told, and after a Ctrl-C too the chat goes on."""
        try:
            outcome = action()
        except OutputError as error:  # of a file that was asked for; the engine goes on
            self._state.notes.error(error)
            outcome = Outcome.GO_ON
        except EngineError:
            raise
        except LLMCliError as error:
            if self._state.backend.failed and self._state.fallback is None:
                raise
            self._state.notes.error(error)
            self._go_back()
            outcome = Outcome.GO_ON
        except KeyboardInterrupt:
            if self._state.conversation.awaits_answer:  # the engine did not react to the first Ctrl-C
                raise
            if not self._state.backend.ready:
                self._state.notes.dim("(stopped; the model is still being loaded)")
            outcome = Outcome.GO_ON
        self._state.log.record(self._state.saved())
        return outcome

    def _go_back(self) -> None:
        """Return to the model before, if the one that was switched to could not be loaded."""
        state = self._state
        if not state.backend.failed or state.fallback is None:
            return
        previous, state.fallback = state.fallback(), None
        state.notes.warn(f"going back to {previous.name}")
        state.use(previous)

    def _handle(self, text: str) -> Outcome:
        state, line = self._state, parse_input(text)
        if isinstance(line, Message):
            return self._send(line.text)
        if state.edited_turns:
            state.cancel_edit()
            state.notes.dim("nothing was changed")
        if line is None:
            return Outcome.GO_ON
        outcome = find_command(line.name).run(state, line.argument)
        match outcome:
            case Outcome.REGENERATE:
                return self._regenerate()
            case Outcome.CONTINUE:
                return self._continue()
            case Outcome.READ_BLOCK:
                return self._send_block()
        return outcome

    def _send_block(self) -> Outcome:
        """Read lines up to /end, and send them as one message."""
        lines: list[str] = []
        while True:
            try:
                line = self._reader.read()
            except EOFError:
                self._state.notes.dim("(dropped)")
                return Outcome.GO_ON
            if line.strip() == BLOCK_END:
                break
            lines.append(line)
        text = "\n".join(lines).strip("\n")
        return self._send(text) if text.strip() else Outcome.GO_ON

    def _send(self, text: str) -> Outcome:
        """Have a message answered; one that can not be asked comes back into the prompt."""
        state = self._state
        edited, attached = state.edited_turns, list(state.attachments)
        state.cancel_edit()
        try:
            backend, before = state.loaded(), state.conversation.snapshot()
            if edited:
                state.conversation.undo(edited)
            state.conversation.add_user("\n\n".join([text, *attached]), state.prefill)
            state.attachments.clear()
            self._answer(backend, state.overrides, before, state.prefill)
        except (LLMCliError, KeyboardInterrupt):
            state.draft, state.edited_turns, state.attachments = text, edited, attached
            if attached:
                state.notes.dim("its files still go with the message; /read - leaves them out")
            raise
        return Outcome.GO_ON

    def _regenerate(self) -> Outcome:
        state = self._state
        backend, before = state.loaded(), state.conversation.snapshot()
        overrides = {**state.overrides, "seed": new_seed()}
        if backend.params(overrides).greedy:
            state.notes.dim("temperature is 0: the same answer is to be expected")
        else:
            state.notes.dim(f"seed {overrides['seed']}")
        state.conversation.reopen(prefill=state.prefill)
        self._answer(backend, overrides, before, state.prefill)
        return Outcome.GO_ON

    def _continue(self) -> Outcome:
        state = self._state
        backend, before = state.loaded(), state.conversation.snapshot()
        tail = " ".join((before[-1].answer or "").split())[-MAX_TAIL:]
        state.notes.dim(f"going on after “… {tail}”")
        state.conversation.reopen(keep_answer=True)
        self._answer(backend, state.overrides, before)
        if state.conversation.turns[-1].answer == before[-1].answer:
            state.notes.dim("nothing was added: the model takes the answer for complete")
        return Outcome.GO_ON

    def _answer(
        self, backend: Backend, overrides: Mapping[str, Any], before: Sequence[Turn], echo: str = ""
    ) -> None:
        """Have the open turn answered; if it can not be asked, the conversation is as it was `before`."""
        state, max_model_len = self._state, backend.max_model_len

        def on_sent(prompt: FittedPrompt) -> None:
            state.last_prompt, state.fallback = prompt, None
            state.log.record(state.saved())

        question = Question(
            overrides=overrides,
            template_kwargs=state.template_kwargs,
            thinking_budget=state.thinking_budget,
            drop=state.drop_turns,
            echo=echo,
            on_dropped=lambda num_dropped: state.notes.warn(dropped_notice(num_dropped, max_model_len)),
            on_sent=on_sent,
        )
        try:
            answer = ask(backend, state.conversation, self._new_view(), question)
        except LLMCliError:
            state.conversation.restore(before)
            raise
        self._tell(answer, max_model_len)

    def _tell(self, answer: Answer, max_model_len: int | None) -> None:
        """Say how an answer ended, and its numbers."""
        state, notes = self._state, self._state.notes
        state.totals.add(answer.stats)
        if answer.finish_reason == "abort":
            notes.warn("(stopped)")
        elif answer.finish_reason == "error":
            notes.error(EngineError(f"the answer failed: {answer.error or 'unknown error'}"))
        cut = cut_notice(answer, max_model_len)
        if cut:
            notes.warn(f"{cut}; /continue goes on")
        if answer.logprobs and state.num_logprobs is not None:
            notes.dim(logprob_lines(answer.logprobs))
        if answer.stats is None:
            return
        full = nearly_full(used_tokens(answer.stats), max_model_len)
        if state.show_stats:
            line = stats_line(answer.stats, max_model_len)
            notes.say(notes.fit(line), "yellow" if full else "dim")
        elif full:
            notes.warn(context_use(used_tokens(answer.stats), max_model_len))
