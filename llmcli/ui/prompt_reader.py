"""Reads a chat's lines on a terminal: several lines, history, completion, and what stands around them.

Built on prompt_toolkit, which is imported when a reader is made. Knows no engine. What the keys do is in `keys.py`;
`line_reader.py` is its sibling for pipes.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcli.errors import UsageError
from llmcli.text.sanitize import sanitize
from llmcli.ui.hint_line import hint_line
from llmcli.ui.interrupt import DoublePress
from llmcli.ui.keys import key_bindings
from llmcli.ui.line_reader import CONTINUED, LEAVE_HINT, PROMPT
from llmcli.ui.wrap import wrap_lines

if TYPE_CHECKING:
    from prompt_toolkit.buffer import Buffer
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.formatted_text import StyleAndTextTuples
    from prompt_toolkit.history import History
    from prompt_toolkit.input import Input
    from prompt_toolkit.output import Output

Completions = Callable[[str], Iterable[tuple[str, str, int]]]
NO_THINKING = "the last answer came without thinking"
ROWS_BELOW = 6
"""Rows of the window that unfolded reasoning leaves to the prompt."""


class PromptReader:
    """The prompt of a chat.

    Enter sends; Alt-Enter, Shift-Enter and Ctrl-J begin a new line, and so does Enter inside triple quotes; a
    paste never sends. Ctrl-C clears the text, on an empty prompt it hints, and twice within a second it raises
    KeyboardInterrupt. Ctrl-G opens the text in an editor, Ctrl-T unfolds and folds the reasoning of the last answer.

    Args:
        history: earlier messages, from `open_history`.
        complete: ways to go on with the text before the cursor: (text, explanation, length of what it
        replaces).
        status: the line below the prompt.
        thinking: the reasoning of the last answer; empty for none.
        edit_last: what Esc Esc on an empty prompt stands for: the line to be read, or None for nothing.
        edit: lets the user change a text in an editor, for Ctrl-G; raises UsageError.
        terminal_input, terminal_output: the terminal; None is the one of this process.
    """

    def __init__(
        self,
        history: "History",
        complete: Completions,
        status: Callable[[], str],
        *,
        thinking: Callable[[], str] = lambda: "",
        edit_last: Callable[[], str | None] = lambda: None,
        edit: Callable[[str], str] = lambda text: text,
        terminal_input: "Input | None" = None,
        terminal_output: "Output | None" = None,
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.input import create_input
        from prompt_toolkit.styles import Style

        self._status = status
        self._thinking = thinking
        self.edit_last = edit_last
        self._edit = edit
        self._interrupts = DoublePress()
        self.holds_draft = False
        self._unfolded = False
        self._notice = ""
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: PromptSession[str] = PromptSession(
            history=history,
            completer=_completer(complete),
            complete_while_typing=False,
            multiline=True,
            prompt_continuation=CONTINUED,
            key_bindings=key_bindings(self),
            bottom_toolbar=self._toolbar,
            style=Style.from_dict(
                {
                    "bottom-toolbar": "noreverse ansibrightblack",
                    "prompt": "bold",
                    "thinking": "ansibrightblack",
                }
            ),
            input=terminal_input or create_input(always_prefer_tty=True),
            output=terminal_output,
        )

    def read(self, text: str = "") -> str:
        """The next message or command.

        Args:
            text: stands in the prompt already, to be edited; Ctrl-C then gives an empty one back.

        Raises:
            EOFError: Ctrl-D on an empty prompt.
            KeyboardInterrupt: Ctrl-C twice.
            BaseException: the error given to `loading_done`.
        """
        self._unfolded, self._notice, self.holds_draft = False, "", bool(text)
        while True:
            if self._error is not None:
                raise self._error
            try:
                return self._session.prompt(self._message, default=text, pre_run=self._attach)
            except KeyboardInterrupt:  # twice at the prompt, or once for an answer that has just ended
                if self._interrupts.press():
                    raise
            finally:
                # What is pasted while an answer is written waits for the next prompt, and must not send there.
                self._session.output.enable_bracketed_paste()
                self._session.output.flush()

    def loading_done(self, error: BaseException | None) -> None:
        """Show the status anew; an error ends the present or the next `read`. Any thread may call it."""
        self._error = error
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop was closed a moment ago: the next prompt begins afresh
                loop.call_soon_threadsafe(self._update)

    def interrupt(self) -> bool:
        """Count a Ctrl-C on an empty prompt; whether it was the second one."""
        return self._interrupts.press()

    def toggle_thinking(self) -> None:
        """Show or hide the reasoning of the last answer, above the prompt."""
        self._unfolded = not self._unfolded and bool(self._thinking())
        self._notice = "" if self._thinking() else NO_THINKING

    async def write_on(self, buffer: "Buffer") -> None:
        """Open the text in the user's editor; what goes wrong with that stands below the prompt."""
        from prompt_toolkit.application import run_in_terminal
        from prompt_toolkit.document import Document

        self._notice = ""
        try:
            buffer.document = Document(
                await run_in_terminal(partial(self._edit, buffer.text), in_executor=True)
            )
        except UsageError as error:
            self._notice = " · ".join(filter(None, (error.what, error.fix)))
        self._session.app.invalidate()

    def _attach(self) -> None:
        """Called in the event loop when the prompt is up."""
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._update)

    def _update(self) -> None:
        app = self._session.app
        if self._error is not None and app.is_running and not app.is_done:
            app.exit(exception=self._error)
        app.invalidate()

    def _message(self) -> "StyleAndTextTuples":
        """The prompt, below the reasoning if that is unfolded; of a sent message only the prompt stays."""
        prompt: StyleAndTextTuples = [("class:prompt", PROMPT)]
        if not self._unfolded or self._session.app.is_done:
            return prompt
        size = self._session.output.get_size()
        lines = wrap_lines(sanitize(self._thinking()).strip(), max(1, size.columns - 1))
        room = max(1, size.rows - ROWS_BELOW)
        if len(lines) > room:
            lines = [f"… {len(lines) - room + 1} lines above", *lines[len(lines) - room + 1 :]]
        return [("class:thinking", "\n".join(lines) + "\n"), *prompt]

    def _toolbar(self) -> str:
        width = self._session.output.get_size().columns
        if self._interrupts.armed:
            return hint_line(LEAVE_HINT, width, ())
        return hint_line(self._notice, width, ()) if self._notice else hint_line(self._status(), width)


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
