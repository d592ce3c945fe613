"""Text that comes into a chat and goes out of it: files, the editor, blocks of lines, the clipboard."""

import base64
import io
from pathlib import Path

import pytest

from llmcli.errors import RequestError, UsageError
from llmcli.ui.clipboard import last_code_block, put_clipboard, read_clipboard
from llmcli.ui.editor import edit_text
from llmcli.ui.session import ChatSession
from llmcli.ui.state import Terminal
from llmcli.ui.text_files import MAX_BYTES, read_text
from llmcli.ui.view import PlainView
from tests.ui.fake_engine import Chat, FakeEngine, Lines, Script


def run(chat: Chat, *lines: str) -> Lines:
    reader = Lines(*lines)
    ChatSession(chat.state, reader, lambda: PlainView(io.StringIO())).run()
    return reader


def users(chat: Chat) -> list[str]:
    return [turn.user for turn in chat.state.conversation.turns]


def test_a_file_goes_with_the_next_message_and_with_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first file\n")
    (tmp_path / "b.txt").write_text("second")
    chat = Chat(FakeEngine())
    run(chat, f"/read {tmp_path}/a.txt", f"/file {tmp_path}/b.txt", "sum up", "and now")
    assert users(chat) == ["sum up\n\nfirst file\n\nsecond", "and now"]
    assert "a.txt: 10 characters, sent with the next message" in chat.notes


def test_a_file_can_be_left_out_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    chat = Chat(FakeEngine())
    run(chat, f"/read {tmp_path}/a.txt", "/read -", "hi")
    assert users(chat) == ["hi"]


def test_a_file_that_makes_the_message_too_long_stays_with_it_to_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("w " * 200)
    chat = Chat(FakeEngine())
    reader = run(chat, f"/read {tmp_path}/a.txt", "sum up", "/read -", "hi")
    assert reader.drafts[2] == "sum up"
    assert "/read - leaves them out" in chat.notes
    assert users(chat) == ["hi"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"caf\xe9 au lait", "not UTF-8 text: byte 4 is 0xe9"),
        (b"PK\x03\x04\x00", "no text: byte 5 is zero"),
        (b" \n", "is empty"),
    ],
)
def test_what_is_no_text_is_refused_with_the_byte(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        read_text(str(tmp_path / "x"))


def test_a_folder_a_missing_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    for name in (str(tmp_path), str(tmp_path / "no"), str(tmp_path / "huge"), "nul\0"):
        with pytest.raises(UsageError):
            read_text(name)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfhi\r\n")
    assert read_text(str(tmp_path / "x")) == "hi"


def test_lines_up_to_end_are_one_message() -> None:
    chat = Chat(FakeEngine())
    run(chat, "/multi", "first", "/status is text here", "", "last", "/end", "next")
    assert users(chat) == ["first\n/status is text here\n\nlast", "next"]


def test_a_block_without_end_is_dropped_and_an_empty_one_sends_nothing() -> None:
    chat = Chat(FakeEngine())
    run(chat, "/multi", "/end", "/multi", "text")
    assert users(chat) == []
    assert "(dropped)" in chat.notes


def test_the_editor_changes_a_text(tmp_path: Path) -> None:
    script = tmp_path / "my editor"
    script.write_text('#!/bin/sh\nprintf "%s" " changed" >> "$2"\n')
    script.chmod(0o755)
    assert edit_text("text", f"'{script}' --wait") == "text changed"


@pytest.mark.parametrize("editor", ["false", "/no/such/editor", "'unclosed", ""])
def test_an_editor_that_fails_is_told(editor: str) -> None:
    with pytest.raises(UsageError, match="the editor"):
        edit_text("text", editor)


def test_what_was_written_in_the_editor_comes_into_the_prompt(tmp_path: Path) -> None:
    script = tmp_path / "edit"
    script.write_text('#!/bin/sh\necho "/written here" > "$1"\n')
    script.chmod(0o755)
    chat = Chat(FakeEngine())
    chat.state.terminal = Terminal(editor=str(script))
    reader = run(chat, "/editor", "/exit")
    assert reader.drafts == ["", '"""\n/written here\n"""']


def test_the_text_of_the_clipboard_goes_with_the_next_message() -> None:
    chat = Chat(FakeEngine())
    chat.state.terminal = Terminal(paste_command=("printf", r"two\r\nlines\n\n"))
    run(chat, "/paste", "sum up", "and now")
    assert users(chat) == ["sum up\n\ntwo\nlines", "and now"]
    assert "the clipboard: 9 characters, sent with the next message" in chat.notes


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("sh", "-c", "echo no display >&2; exit 1"), "sh does not give the clipboard\nno display"),
        (("/no/such/program",), "/no/such/program does not give the clipboard"),
        (("printf", r"\377"), "the clipboard holds something that is no text"),
        (("printf", r"a\0b"), "the clipboard holds no text"),
        (("true",), "the clipboard holds no text"),
        (None, "/paste finds no program that reads the clipboard"),
    ],
)
def test_a_clipboard_that_gives_no_text_is_told(command: tuple[str, ...] | None, said: str) -> None:
    chat = Chat(FakeEngine())
    chat.state.terminal = Terminal(paste_command=command)
    run(chat, "/paste", "hi")
    assert f"error: {said}" in chat.notes
    assert users(chat) == ["hi"]


def test_a_clipboard_that_keeps_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcli.ui.clipboard.READ_S", 0.1)
    with pytest.raises(RequestError, match="no answer within"):
        read_clipboard(("sleep", "60"))


def test_the_editor_needs_a_terminal() -> None:
    chat = Chat(FakeEngine())
    run(chat, "/editor")
    assert "error: /editor needs a terminal" in chat.notes


def test_copy_takes_the_last_answer_or_its_last_code_block() -> None:
    chat = Chat(FakeEngine([Script(("Try\n```sh\nls -l\n```\nor\n~~~\npwd\n~~~\n",))]))
    run(chat, "how", "/copy code", "/copy")
    assert chat.clipboard == ["pwd", "Try\n```sh\nls -l\n```\nor\n~~~\npwd\n~~~\n"]


def test_copy_tells_what_is_missing() -> None:
    chat = Chat(FakeEngine())
    run(chat, "/copy", "hi", "/copy code", "/copy all")
    for said in ("there is no answer to copy", "has no code block", "/copy takes nothing or code"):
        assert f"error: {said}" in chat.notes or said in chat.notes
    assert chat.clipboard == []


def test_the_clipboard_gets_the_text_in_one_control_sequence() -> None:
    screen = io.StringIO()
    put_clipboard(screen, "Über\n")
    sequence = screen.getvalue()
    assert (sequence[:7], sequence[-1]) == ("\x1b]52;c;", "\x07")
    assert base64.b64decode(sequence[7:-1]).decode() == "Über\n"


def test_code_blocks_are_found_by_the_rules_of_markdown() -> None:
    assert last_code_block("a\n\n    indented\n") == "indented"
    assert last_code_block("````\n```\ninner\n```\n````") == "```\ninner\n```"
    assert last_code_block("`inline`") == ""
