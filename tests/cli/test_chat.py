"""`llmcli chat` from the outside: what is refused before a model is loaded, pipes, and a real terminal."""

import io
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from llmcli.cli.app import run_command_line

GIVE_UP_S = 120.0
RunProgram = Callable[..., subprocess.CompletedProcess[str]]
TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


@pytest.fixture
def stories(shared_data: Path) -> Path:
    """A real model without a chat template."""
    folder = shared_data / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip(f"no model at {folder}")
    return folder


@pytest.fixture
def chat_model(stories: Path, tmp_path: Path) -> Path:
    """The same model with a chat template."""
    folder = tmp_path / "chat-model"
    folder.mkdir()
    for file in stories.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    config = json.loads((stories / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    return folder


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str, piped: bytes = b""
) -> str:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
    code = run_command_line(["chat", *args])
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("args", "piped", "said"),
    [
        pytest.param([], b"", "there is no prompt: standard input is empty", id="nothing"),
        pytest.param([], b" \n", "there is no prompt", id="blank"),
        pytest.param([], b"a\xff", "not UTF-8 text: byte 1 is 0xff", id="not UTF-8"),
        pytest.param(["-i", "-st"], b"hi", "exclude each other", id="-i -st"),
        pytest.param(["hi", "--temperature", "2.1"], b"", "--temperature must be a number in 0..2", id="C8"),
        pytest.param(["hi", "--top-p", "0"], b"", "--top-p must be a number above 0", id="C9"),
        pytest.param(["hi", "--max-tokens", "0"], b"", "--max-tokens must be an integer in 1..", id="C7"),
        pytest.param(["hi", "--seed", str(2**64)], b"", "--seed must be an integer in 0..", id="C10"),
        pytest.param(["./missing-folder", "hi"], b"", "./missing-folder", id="no such folder"),
        pytest.param(["../../etc", "hi"], b"", "owner/name or an existing folder", id="C16"),
        pytest.param(["hi", "--temprature", "1"], b"", "did you mean --temperature?", id="C26"),
    ],
)
def test_what_is_wrong_in_the_call_is_said_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    args: list[str],
    piped: bytes,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("select.select", lambda readers, *rest: (readers, [], []))
    assert said in refused(monkeypatch, capsys, *args, piped=piped)


@pytest.mark.parametrize("through_pipe", [False, True])
def test_stdout_holds_the_greedy_answer_and_nothing_else(
    stories: Path, run_llmcli: RunProgram, through_pipe: bool
) -> None:
    golden = json.loads((stories / "golden_greedy.json").read_text())
    case = golden["cases"][0]
    options = ["--temperature", "0", "-n", str(golden["max_new_tokens"]), "--dtype", "float32"]
    prompt = [] if through_pipe else [case["prompt"]]
    done = run_llmcli("chat", str(stories), *prompt, *options, input=case["prompt"] if through_pipe else "")
    assert done.returncode == 0, done.stderr
    assert done.stdout == case["text"].rstrip("\n") + "\n"
    assert "cut at max_tokens 96" in done.stderr
    assert "no chat template" in done.stderr


def test_a_session_without_a_terminal_takes_a_message_from_each_line(
    chat_model: Path, run_llmcli: RunProgram
) -> None:
    lines = (
        'One day\n/set max_tokens 4\nThe dog\n/regen\n/undo\n/nonsense\n"""\nTwo\nlines\n"""\n/exit\nnever\n'
    )
    done = run_llmcli("chat", "-i", str(chat_model), "-n", "3", "--stats", input=lines)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    for said in ("max_tokens = 4 (session)", "seed ", "took back 1 turn", "unknown command /nonsense"):
        assert said in done.stderr
    assert done.stderr.count("TTFT") == 4


def test_a_reader_that_goes_away_ends_the_program_quietly(stories: Path, program_env: dict[str, str]) -> None:
    command = f"{sys.executable} -m llmcli chat {stories} hi --ignore-eos </dev/null | head -c 3"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=program_env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 141
    assert "Traceback" not in done.stderr


class Terminal:
    """`llmcli chat` on a terminal of its own."""

    def __init__(self, args: list[str], env: dict[str, str]) -> None:
        self.screen, far_end = pty.openpty()
        self.modes = termios.tcgetattr(far_end)
        self.far_end = far_end
        command = [sys.executable, "-m", "llmcli", "chat", *args]
        self.process = subprocess.Popen(
            command, stdin=far_end, stdout=far_end, stderr=far_end, env=env | {"TERM": "xterm"}
        )
        self.output = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.screen)
        os.close(self.far_end)

    def until(self, text: str, count: int = 1) -> None:
        """Wait until `text` was printed `count` times in all."""
        ends = time.monotonic() + GIVE_UP_S
        while self.output.count(text) < count:
            ready, _, _ = select.select([self.screen], [], [], 1.0)
            assert time.monotonic() < ends, f"no {text!r} at the end of {self.output[-1000:]!r}"
            if ready:
                part = os.read(self.screen, 4096)
                if b"\x1b[6n" in part:  # prompt_toolkit asks where the cursor is
                    self.type("\x1b[1;1R")
                self.output += part.decode(errors="replace")

    def type(self, keys: str) -> None:
        os.write(self.screen, keys.encode())


@pytest.mark.skipif(os.name != "posix", reason="needs pseudo-terminals")
def test_a_chat_on_a_terminal(chat_model: Path, program_env: dict[str, str]) -> None:
    with Terminal([str(chat_model), "-n", "5"], program_env) as terminal:
        use_terminal(terminal)
    history = Path(program_env["HOME"]) / ".local" / "state" / "llmcli" / "history"
    assert "+lines" in history.read_text()


def use_terminal(terminal: Terminal) -> None:
    terminal.until(">>>")
    terminal.type("One day\r")
    terminal.until("TTFT")
    terminal.type("two\x1b\rlines\r")
    terminal.until("TTFT", 2)
    terminal.type("/undo\r")
    terminal.until(r"took back 1 turn, from “two\nlines” on")
    terminal.type("\x04")
    assert terminal.process.wait(GIVE_UP_S) == 0
    assert termios.tcgetattr(terminal.far_end) == terminal.modes
