"""Reads a chat's lines on a terminal: several lines, history, completion, and the keys that people expect.

Built on prompt_toolkit, which is imported when a reader is made. Knows no engine; `line_reader.py` is its
sibling for pipes.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcli.ui.interrupt import TWICE_S, DoublePress
from llmcli.ui.line_reader import CONTINUED, LEAVE_HINT, PROMPT, is_closed

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History
    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.output import Output

Completions = Callable[[str], Iterable[tuple[str, str, int]]]


class PromptReader:
    """The prompt of a chat.

    Enter sends; Alt-Enter and Ctrl-J begin a new line, and so does Enter inside triple quotes; a paste
    never sends. Ctrl-C clears the text, on an empty prompt it hints, and twice within a second it raises
    KeyboardInterrupt.

    Args:
        history: earlier messages, from `open_history`.
        complete: ways to go on with the text before the cursor: (text, explanation, length of what it
        replaces).
        status: the line below the prompt.
        terminal_input, terminal_output: the terminal; None is the one of this process.
    """

    def __init__(
        self,
        history: "History",
        complete: Completions,
        status: Callable[[], str],
        *,
        terminal_input: "Input | None" = None,
        terminal_output: "Output | None" = None,
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.input import create_input
        from prompt_toolkit.styles import Style

        self._status = status
        self._interrupts = DoublePress()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: PromptSession[str] = PromptSession(
            history=history,
            completer=_completer(complete),
            complete_while_typing=False,
            multiline=True,
            prompt_continuation=CONTINUED,
            key_bindings=_key_bindings(self._interrupts),
            bottom_toolbar=self._toolbar,
            style=Style.from_dict({"bottom-toolbar": "noreverse ansibrightblack", "prompt": "bold"}),
            input=terminal_input or create_input(always_prefer_tty=True),
            output=terminal_output,
        )

    def read(self) -> str:
        """The next message or command.

        Raises:
            EOFError: Ctrl-D on an empty prompt.
            KeyboardInterrupt: Ctrl-C twice.
            BaseException: the error given to `loading_done`.
        """
        while True:
            if self._error is not None:
                raise self._error
            try:
                return self._session.prompt([("class:prompt", PROMPT)], pre_run=self._attach)
            except KeyboardInterrupt:  # twice at the prompt, or once for an answer that has just ended
                if self._interrupts.press():
                    raise

    def loading_done(self, error: BaseException | None) -> None:
        """Show the status anew; an error ends the present or the next `read`. Any thread may call it."""
        self._error = error
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop was closed a moment ago: the next prompt begins afresh
                loop.call_soon_threadsafe(self._update)

    def _attach(self) -> None:
        """Called in the event loop when the prompt is up."""
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._update)

    def _update(self) -> None:
        app = self._session.app
        if self._error is not None and app.is_running and not app.is_done:
            app.exit(exception=self._error)
        app.invalidate()

    def _toolbar(self) -> str:
        return LEAVE_HINT if self._interrupts.armed else self._status()


def open_history(path: Path | None) -> "History":
    """The messages sent in earlier chats; None keeps them in memory only.

    The file can be read by its owner only, as what people type is private.

    Raises:
        OSError: the file can not be made or written.
    """
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if path is None:
        return InMemoryHistory()

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)

    class PrivateHistory(FileHistory):
        """Keeps the chat alive when the disk is full."""

        def store_string(self, string: str) -> None:
            try:
                super().store_string(string)
            except OSError:
                return

    return PrivateHistory(str(path))


def _completer(complete: Completions) -> "Completer":
    from prompt_toolkit.completion import Completer, Completion
    from prompt_toolkit.document import Document

    class SlashCompleter(Completer):
        def get_completions(self, document: Document, complete_event: Any) -> Iterator[Completion]:
            for text, explanation, typed in complete(document.text_before_cursor):
                yield Completion(text, start_position=-typed, display_meta=explanation)

    return SlashCompleter()


def _key_bindings(interrupts: DoublePress) -> "KeyBindings":
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import has_focus
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()
    in_prompt = has_focus(DEFAULT_BUFFER)  # not in the Ctrl-R search line, where the same keys end the search

    @keys.add("enter", filter=in_prompt)
    def _send(event: "KeyPressEvent") -> None:
        buffer = event.current_buffer
        if is_closed(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    @keys.add("escape", "enter", filter=in_prompt)
    @keys.add("c-j", filter=in_prompt)
    def _new_line(event: "KeyPressEvent") -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c", filter=in_prompt)
    @keys.add("<sigint>")
    def _interrupt(event: "KeyPressEvent") -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        elif interrupts.press():
            event.app.exit(exception=KeyboardInterrupt)
        else:
            event.app.invalidate()
            asyncio.get_running_loop().call_later(TWICE_S, event.app.invalidate)  # takes the hint away

    return keys
