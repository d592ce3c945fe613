"""The keys of the prompt, typed into prompt_toolkit through a pipe."""

import asyncio
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from llmcli.errors import DoesNotFitError
from llmcli.ui.commands.table import complete
from llmcli.ui.editor import edit_text
from llmcli.ui.prompt_reader import NO_THINKING, PromptReader, open_history

ALT_ENTER, CTRL_C, CTRL_D, CTRL_G, CTRL_J, CTRL_R, CTRL_T, ENTER, ESCAPE, TAB, UP = (
    "\x1b\r",
    "\x03",
    "\x04",
    "\x07",
    "\n",
    "\x12",
    "\x14",
    "\r",
    "\x1b",
    "\t",
    "\x1b[A",
)


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe


@pytest.fixture
def reader(keyboard: PipeInput) -> PromptReader:
    history = InMemoryHistory()
    return PromptReader(
        history, complete, lambda: "fake", terminal_input=keyboard, terminal_output=DummyOutput()
    )


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("hello" + ENTER, "hello"),
        ("one" + ALT_ENTER + "two" + ENTER, "one\ntwo"),
        ("one" + CTRL_J + "two" + ENTER, "one\ntwo"),
        pytest.param("one\x1b[27;2;13~two" + ENTER, "one\ntwo", id="Shift-Enter of xterm"),
        pytest.param("one\x1b[13;2utwo" + ENTER, "one\ntwo", id="Shift-Enter of kitty"),
        pytest.param("one\x1b[13;3utwo" + ENTER, "one\ntwo", id="Alt-Enter of kitty"),
        pytest.param("one\x1b[27;3;13~two" + ENTER, "one\ntwo", id="Alt-Enter of xterm"),
        pytest.param("one\x1b[27;5;13~", "one", id="Ctrl-Enter sends"),
        ('"""' + ENTER + "one" + ENTER + '"""' + ENTER, '"""\none\n"""'),
        ("\x1b[200~pasted\rlines\n\x1b[201~" + ENTER, "pasted\nlines\n"),
        ("wrong" + CTRL_C + "right" + ENTER, "right"),
        ("ab" + CTRL_D + "c" + ENTER, "abc"),
    ],
)
def test_keys_make_a_message(reader: PromptReader, keyboard: PipeInput, keys: str, text: str) -> None:
    keyboard.send_text(keys)
    assert reader.read() == text


def test_ctrl_c_leaves_the_editing_of_a_text_so_that_what_is_typed_next_is_not_taken_for_it(
    reader: PromptReader, keyboard: PipeInput
) -> None:
    keyboard.send_text(" changed" + CTRL_C)
    assert reader.read("the old text") == ""


def test_tab_completes_a_command(keyboard: PipeInput) -> None:
    def complete_then_send(text: str) -> Iterator[tuple[str, str, int]]:
        yield from complete(text)
        keyboard.send_text(ENTER)

    reader = PromptReader(
        InMemoryHistory(),
        complete_then_send,
        lambda: "",
        terminal_input=keyboard,
        terminal_output=DummyOutput(),
    )
    keyboard.send_text("/und" + TAB)
    assert reader.read() == "/undo"


def test_ctrl_d_on_an_empty_prompt_ends_the_input(reader: PromptReader, keyboard: PipeInput) -> None:
    keyboard.send_text(CTRL_D)
    with pytest.raises(EOFError):
        reader.read()


def test_ctrl_c_on_an_empty_prompt_hints_and_leaves_when_pressed_again(
    reader: PromptReader, keyboard: PipeInput
) -> None:
    keyboard.send_text(CTRL_C + "hi" + ENTER)
    assert reader.read() == "hi"
    keyboard.send_text(CTRL_C + CTRL_C)
    with pytest.raises(KeyboardInterrupt):
        reader.read()


def test_ctrl_c_on_the_way_to_the_prompt_is_not_for_the_prompt(
    reader: PromptReader, keyboard: PipeInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt, presses = reader._session.prompt, iter([True, False])

    def pressed_too_late(*args: Any, **more: Any) -> str:
        if next(presses):
            signal.raise_signal(signal.SIGINT)
        return prompt(*args, **more)

    monkeypatch.setattr(reader._session, "prompt", pressed_too_late)
    keyboard.send_text("hi" + ENTER)
    assert reader.read() == "hi"


def test_up_brings_an_earlier_message_back_and_ctrl_r_finds_one(
    reader: PromptReader, keyboard: PipeInput
) -> None:
    for text in ("first", "second"):
        keyboard.send_text(text + ENTER)
        reader.read()
    keyboard.send_text(UP + ENTER)
    assert reader.read() == "second"
    keyboard.send_text(CTRL_R + "fir" + ENTER + ENTER)
    assert reader.read() == "first"


def test_a_failure_ends_the_prompt_that_is_up_and_every_later_one(reader: PromptReader) -> None:
    threading.Timer(0.05, reader.loading_done, [DoesNotFitError("too big")]).start()
    with pytest.raises(DoesNotFitError):
        reader.read()
    with pytest.raises(DoesNotFitError):
        reader.read()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_history_is_kept_for_the_next_run_and_private(tmp_path: Path, keyboard: PipeInput) -> None:
    path = tmp_path / "state" / "history"
    for text in ("remembered\nwith two lines", None):
        reader = PromptReader(
            open_history(path), complete, lambda: "", terminal_input=keyboard, terminal_output=DummyOutput()
        )
        keyboard.send_text((text.replace("\n", CTRL_J) if text else UP) + ENTER)
        assert reader.read() == "remembered\nwith two lines"
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700


def test_a_history_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.touch(mode=0o644)
    open_history(path)
    assert mode(path) == 0o600


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_history(None).append_string("secret")
    assert list(tmp_path.iterdir()) == []


def test_a_history_that_can_not_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        open_history(tmp_path / "file" / "history")


class Screen(DummyOutput):
    """Remembers whether pastes come marked."""

    marks_pastes = False

    def enable_bracketed_paste(self) -> None:
        self.marks_pastes = True

    def disable_bracketed_paste(self) -> None:
        self.marks_pastes = False


def reader_with(keyboard: PipeInput, **more: Any) -> PromptReader:
    return PromptReader(
        InMemoryHistory(),
        complete,
        lambda: "model",
        terminal_input=keyboard,
        terminal_output=more.pop("output", DummyOutput()),
        **more,
    )


def test_pastes_stay_marked_between_two_prompts(keyboard: PipeInput) -> None:
    screen = Screen()
    reader = reader_with(keyboard, output=screen)
    keyboard.send_text("hi" + ENTER)
    reader.read()
    assert screen.marks_pastes
    keyboard.send_text("\x1b[200~one\rtwo\x1b[201~" + ENTER)
    assert reader.read() == "one\ntwo"


def test_a_text_to_be_edited_stands_in_the_prompt(keyboard: PipeInput) -> None:
    keyboard.send_text(" there" + ENTER)
    assert reader_with(keyboard).read("hello") == "hello there"


def test_escape_twice_on_an_empty_prompt_asks_for_the_last_message_back(keyboard: PipeInput) -> None:
    reader = reader_with(keyboard, edit_last=lambda: "/edit")
    keyboard.send_text(ESCAPE + ESCAPE)
    assert reader.read() == "/edit"


@pytest.mark.parametrize("edit_last", [lambda: None, lambda: "/edit"])
def test_escape_twice_does_nothing_to_a_text_or_without_a_message(
    keyboard: PipeInput, edit_last: Callable[[], str | None]
) -> None:
    reader = reader_with(keyboard, edit_last=edit_last)
    keyboard.send_text("a" + ESCAPE + ESCAPE + "b" + ENTER)
    assert reader.read() == "ab"


def test_ctrl_g_opens_the_text_in_the_editor(keyboard: PipeInput, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf " edited\\n" >> "$1"\n')
    editor.chmod(0o755)
    reader = reader_with(keyboard, edit=partial(edit_text, editor=str(editor)))
    buffer = reader._session.default_buffer
    buffer.on_text_changed += lambda _: keyboard.send_text(ENTER) if "edited" in buffer.text else None
    keyboard.send_text("text" + CTRL_G)
    assert reader.read() == "text edited"


def test_an_editor_that_can_not_be_used_is_told_below_the_prompt_and_the_text_stays(
    keyboard: PipeInput,
) -> None:
    reader = reader_with(keyboard, edit=partial(edit_text, editor="no-such"))
    buffer = reader._session.default_buffer

    async def press_ctrl_g() -> None:
        buffer.text = "text"
        await reader.write_on(buffer)

    asyncio.run(press_ctrl_g())
    assert buffer.text == "text"
    assert "'no-such' can not be used" in reader._toolbar()
    assert "set EDITOR" in reader._toolbar()


def test_ctrl_t_unfolds_and_folds_the_thinking_of_the_last_answer(keyboard: PipeInput) -> None:
    reader = reader_with(keyboard, thinking=lambda: "one\x1b[2J\ntwo")
    shown = []

    def toggle() -> None:
        PromptReader.toggle_thinking(reader)
        shown.append("".join(text for _, text, *_ in reader._message()))

    reader.toggle_thinking = toggle  # type: ignore[method-assign]
    keyboard.send_text(CTRL_T * 3 + "hi" + ENTER)
    assert reader.read() == "hi"
    assert shown == ["one\ntwo\n>>> ", ">>> ", "one\ntwo\n>>> "]


def test_thinking_higher_than_the_window_is_cut_above(keyboard: PipeInput) -> None:
    reader = reader_with(keyboard, thinking=lambda: "\n".join(map(str, range(100))))
    reader.toggle_thinking()
    text = "".join(text for _, text, *_ in reader._message())
    assert text.startswith("… ")
    assert text.endswith("98\n99\n>>> ")
    assert text.count("\n") < DummyOutput().get_size().rows


def test_ctrl_t_tells_when_there_was_no_thinking(keyboard: PipeInput) -> None:
    reader = reader_with(keyboard)
    reader.toggle_thinking()
    assert reader._toolbar() == NO_THINKING


def test_the_line_below_the_prompt_tells_the_status_and_some_keys(keyboard: PipeInput) -> None:
    assert reader_with(keyboard)._toolbar().startswith("model · /help")
