"""Slash commands that bring text into the chat and out of it: files, the editor, blocks, the clipboard.

Used by `table.py`; files are read by `text_files.py`, the editor is started by `editor.py`.
"""

from llmcli.errors import RequestError, UsageError, quote
from llmcli.ui.clipboard import last_code_block, read_clipboard
from llmcli.ui.commands.command import Command, Outcome
from llmcli.ui.editor import edit_text
from llmcli.ui.state import ChatState
from llmcli.ui.status import count
from llmcli.ui.text_files import read_text

DROP = "-"


def read(state: ChatState, argument: str) -> Outcome:
    """Have the text of a file go with the next message."""
    if argument == DROP:
        state.attachments.clear()
        state.notes.dim("no file goes with the next message")
    elif argument:
        _attach(state, quote(argument), read_text(argument))
    else:
        raise UsageError("/read needs the name of a file", fix="such as /read notes.txt")
    return Outcome.GO_ON


def paste(state: ChatState, argument: str) -> Outcome:
    """Have the text of the clipboard go with the next message."""
    if argument:
        raise UsageError("/paste takes nothing", fix="type the message after it; the text goes with that")
    command = state.terminal.paste_command
    if command is None:
        raise UsageError(
            "/paste finds no program that reads the clipboard",
            why="it looks for wl-paste, xclip, xsel, pbpaste and, in WSL, powershell.exe",
            fix="paste into the prompt with the terminal's own key: nothing is sent before Enter",
        )
    _attach(state, "the clipboard", read_clipboard(command))
    return Outcome.GO_ON


def _attach(state: ChatState, name: str, text: str) -> None:
    state.attachments.append(text)
    size = f"{count(len(text))} character{'s' if len(text) != 1 else ''}"
    state.notes.dim(f"{name}: {size}, sent with the next message (/read - leaves it out)")


def multi(state: ChatState, argument: str) -> Outcome:
    """Take all lines up to /end as one message."""
    state.notes.dim("everything up to a line with /end is one message; Ctrl-D drops it")
    return Outcome.READ_BLOCK


def editor(state: ChatState, argument: str) -> Outcome:
    """Write the next message in an editor; it comes back into the prompt, to be sent with Enter."""
    if state.terminal.editor is None:
        raise UsageError("/editor needs a terminal", fix='write several lines between """ and """')
    state.draft = edit_text(argument, state.terminal.editor)
    if not state.draft.strip():
        state.draft = ""
        state.notes.dim("nothing was written")
    return Outcome.GO_ON


def copy(state: ChatState, argument: str) -> Outcome:
    """Copy the last answer, or its last code block."""
    if argument not in ("", "code"):
        raise UsageError(f"/copy takes nothing or code, got {quote(argument, 40)}")
    answer = state.conversation.turns[-1].answer if state.conversation.turns else ""
    if not answer:
        raise RequestError("there is no answer to copy")
    if state.terminal.put_clipboard is None:
        raise UsageError("/copy needs a terminal", fix="/export FILE.md writes the chat to a file")
    text = last_code_block(answer) if argument else answer
    if not text:
        raise RequestError("the last answer has no code block", fix="/copy copies all of it")
    state.terminal.put_clipboard(text)
    state.notes.dim(f"{count(len(text))} characters copied, if the terminal allows it (OSC 52)")
    return Outcome.GO_ON


TEXT_COMMANDS: tuple[Command, ...] = (
    Command("read", "FILE", "Send the text of a file with the next message.", read, ("file",)),
    Command("paste", "", "Send the text of the clipboard with the next message.", paste),
    Command("multi", "", "Write a message of several lines; /end sends it.", multi),
    Command("editor", "[TEXT]", "Write the next message in $VISUAL or $EDITOR.", editor),
    Command("copy", "[code]", "Copy the last answer, or its last code block.", copy),
)
