"""What the keys of the prompt do.

Built on prompt_toolkit. Made by `prompt_reader.py`, which says what the keys act on.
"""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from llmcli.ui.interrupt import TWICE_S
from llmcli.ui.line_reader import is_closed

if TYPE_CHECKING:
    from prompt_toolkit.buffer import Buffer
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

SHIFT_ENTER = "\x1b[27;2;13~"
"""As xterm's modifyOtherKeys reports it; prompt_toolkit takes it for Enter."""

NEW_LINE_SEQUENCES = ("[13;2u", "[13;3u", "[27;3;13~")
"""Shift-Enter and Alt-Enter of the kitty protocol, and Alt-Enter of xterm's, behind their ESC. prompt_toolkit knows
none of them and hands them on character by character, as which they are bound here."""


class Prompt(Protocol):
    """What the keys act on."""

    @property
    def holds_draft(self) -> bool:
        """Whether the prompt began with a text to be edited."""
        ...

    def interrupt(self) -> bool:
        """Count a Ctrl-C on an empty prompt; whether it was the second one."""
        ...

    def toggle_thinking(self) -> None:
        """Show or hide the reasoning of the last answer."""
        ...

    def edit_last(self) -> str | None:
        """The line to be read in place of Esc Esc, None for none."""
        ...

    def write_on(self, buffer: "Buffer") -> Coroutine[Any, Any, None]:
        """Open the text in the user's editor."""
        ...


def key_bindings(prompt: Prompt) -> "KeyBindings":
    """The bindings on top of prompt_toolkit's own, which bring history, search, Ctrl-L and Ctrl-D."""
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()
    _add_new_line(keys)
    _add_interrupt(keys, prompt)
    _add_others(keys, prompt)
    return keys


def _add_new_line(keys: "KeyBindings") -> None:
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import has_focus

    in_prompt = has_focus(DEFAULT_BUFFER)  # not in the Ctrl-R search line, where the same keys end the search

    @keys.add("enter", filter=in_prompt)
    def _send(event: "KeyPressEvent") -> None:
        buffer = event.current_buffer
        if is_closed(buffer.text) and event.key_sequence[-1].data != SHIFT_ENTER:
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    def new_line(event: "KeyPressEvent") -> None:
        event.current_buffer.insert_text("\n")

    for sequence in (("escape", "enter"), ("c-j",), *(("escape", *chars) for chars in NEW_LINE_SEQUENCES)):
        keys.add(*sequence, filter=in_prompt)(new_line)


def _add_interrupt(keys: "KeyBindings", prompt: Prompt) -> None:
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import has_focus

    @keys.add("c-c", filter=has_focus(DEFAULT_BUFFER))
    @keys.add("<sigint>")
    def _interrupt(event: "KeyPressEvent") -> None:
        if prompt.holds_draft:
            event.app.exit(result="")  # what is typed next is no edit of that text
        elif event.current_buffer.text:
            event.current_buffer.reset()
        elif prompt.interrupt():
            event.app.exit(exception=KeyboardInterrupt)
        else:
            event.app.invalidate()
            asyncio.get_running_loop().call_later(TWICE_S, event.app.invalidate)  # takes the hint away


def _add_others(keys: "KeyBindings", prompt: Prompt) -> None:
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import has_focus

    in_prompt = has_focus(DEFAULT_BUFFER)

    @keys.add("c-g", filter=in_prompt)
    def _editor(event: "KeyPressEvent") -> None:
        event.app.create_background_task(prompt.write_on(event.current_buffer))

    @keys.add("c-t", filter=in_prompt)
    def _thinking(event: "KeyPressEvent") -> None:
        prompt.toggle_thinking()
        event.app.invalidate()

    @keys.add("escape", "escape", filter=in_prompt)
    def _edit_last(event: "KeyPressEvent") -> None:
        line = None if event.current_buffer.text else prompt.edit_last()
        if line is not None:
            event.app.exit(result=line)
