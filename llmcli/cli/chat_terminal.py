"""What `llmcli chat` puts together for the streams of this process: the prompt, the view of an answer, what commands
may do with the terminal. Called by `chat.py`; the parts are in `ui/`.
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llmcli.cli.clipboard import paste_command
from llmcli.cli.editor import editor_command
from llmcli.cli.saved_chats import state_folder

if TYPE_CHECKING:
    from llmcli.ui.prompt_reader import PromptReader
    from llmcli.ui.state import ChatState, Terminal
    from llmcli.ui.thinking import ThinkingMode
    from llmcli.ui.view import Thinking, View


def prompt_reader(state: "ChatState", keep_history: bool) -> "PromptReader":
    """The prompt of a chat; what goes wrong with the file of earlier messages is told, and ends nothing."""
    from llmcli.ui.commands.table import complete
    from llmcli.ui.editor import edit_text
    from llmcli.ui.prompt_reader import PromptReader, open_history

    path: Path | None = state_folder() / "history" if keep_history else None
    try:
        history = open_history(path)
    except OSError as error:
        state.notes.warn(f"what you type is not kept for the next chat: {path}: {error.strerror}")
        history = open_history(None)
    reader = PromptReader(
        history,
        complete,
        lambda: state.backend.progress(),
        thinking=state.conversation.last_reasoning,
        edit_last=lambda: "/edit" if state.conversation.turns else None,
        edit=partial(edit_text, editor=editor_command()),
    )
    state.backend.on_done(reader.loading_done)
    # A model that is switched to and fails ends no chat: the next message tells, and the one before is back.
    state.on_model = lambda backend: backend.on_done(lambda error: reader.loading_done(None))
    return reader


def terminal_of_commands() -> "Terminal":
    """What the terminal can do for commands, if there is one."""
    from llmcli.ui.clipboard import put_clipboard
    from llmcli.ui.state import Terminal

    if not can_edit():
        return Terminal()
    return Terminal(
        editor=editor_command(),
        put_clipboard=partial(put_clipboard, sys.stdout),
        paste_command=paste_command(),
    )


def new_view(state: "ChatState") -> "View":
    """A view on stdout: Markdown where a person reads along, plain text as it is in a pipe."""
    from llmcli.ui.console import stdout_console
    from llmcli.ui.live_region import LiveRegion
    from llmcli.ui.markdown.view import MarkdownView
    from llmcli.ui.thinking import TaggedThinking, ThinkingView
    from llmcli.ui.view import AnswerView, PlainView
    from llmcli.ui.wrap import WordWrap

    terminal, live, show_thinking = is_terminal(sys.stdout), can_edit(), state.show_thinking
    region = LiveRegion(sys.stdout, live=live)
    text: MarkdownView | PlainView
    # What has a form is no Markdown: \" would lose its backslash.
    renders = live and state.parameters.form is None
    if renders if state.markdown is None else state.markdown:
        text = MarkdownView(stdout_console(), region)
    else:
        wants_wrap = terminal if state.wrap is None else state.wrap
        text = PlainView(sys.stdout, WordWrap(lambda: region.width) if wants_wrap else None)
    thinking: Thinking | None = None
    if terminal:
        mode: ThinkingMode = "fold" if show_thinking is None else "show" if show_thinking else "hide"
        thinking = ThinkingView(region, mode, styled=live)
    elif show_thinking:
        thinking = TaggedThinking(sys.stdout)
    return AnswerView(text, thinking)


def can_edit() -> bool:
    """Whether lines can be edited: the output is a terminal that can move its cursor."""
    return is_terminal(sys.stdout) and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def is_terminal(stream: object) -> bool:
    """Whether a person is at the other end of a stream."""
    return stream is not None and stream.isatty()  # type: ignore[attr-defined]
