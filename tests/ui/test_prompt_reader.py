"""The keys of the prompt, typed into prompt_toolkit through a pipe."""

import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from llmcli.errors import DoesNotFitError
from llmcli.ui.commands import complete
from llmcli.ui.prompt_reader import PromptReader, open_history

ALT_ENTER, CTRL_C, CTRL_D, CTRL_J, CTRL_R, ENTER, TAB, UP = (
    "\x1b\r",
    "\x03",
    "\x04",
    "\n",
    "\x12",
    "\r",
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
        ('"""' + ENTER + "one" + ENTER + '"""' + ENTER, '"""\none\n"""'),
        ("\x1b[200~pasted\rlines\n\x1b[201~" + ENTER, "pasted\nlines\n"),
        ("wrong" + CTRL_C + "right" + ENTER, "right"),
        ("ab" + CTRL_D + "c" + ENTER, "abc"),
    ],
)
def test_keys_make_a_message(reader: PromptReader, keyboard: PipeInput, keys: str, text: str) -> None:
    keyboard.send_text(keys)
    assert reader.read() == text


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
