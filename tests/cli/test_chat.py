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
from tests.cli.terminal import on_terminal
from tests.ui.fake_server import FakeServer, answer

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
        pytest.param(["-c", "--resume", "x"], b"hi", "--continue and --resume exclude", id="-c --resume"),
        pytest.param(["--resume", "x", "--no-log"], b"hi", "--resume and --no-log exclude", id="--no-log"),
        pytest.param(["hi", "--resume"], b"", "there is no saved session", id="nothing to choose from"),
        pytest.param(["hi", "-c"], b"", "there is no saved session", id="nothing to continue"),
        pytest.param(["hi", "--resume", "nope"], b"", "there is no session nope", id="no such session"),
        pytest.param(["hi", "--session", "../x"], b"", "is no name for a session", id="bad name"),
        pytest.param(["hi", "--load", "nope.json"], b"", "nope.json", id="no such chat"),
        pytest.param(["hi", "--save", "x.pdf"], b"", "no ending that tells the format", id="bad ending"),
        pytest.param(["hi", "-f", "nope.txt"], b"", "nope.txt can not be read", id="no such file"),
        pytest.param(["-i", "--json"], b"hi", "--json prints a single answer", id="--json alone"),
        pytest.param(["hi", "--overflow", "forget"], b"", "'drop', 'error'", id="bad overflow"),
        pytest.param(["hi", "--url", "localhost:1"], b"", "is no address of a server", id="bad address"),
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
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
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


def session_files(env: dict[str, str]) -> list[Path]:
    folder = Path(env["HOME"]) / ".local" / "state" / "llmcli" / "sessions"
    return sorted(folder.glob("*.jsonl")) if folder.is_dir() else []


def test_a_chat_is_saved_as_it_goes_and_goes_on_with_what_was_set(
    chat_model: Path, run_llmcli: RunProgram, program_env: dict[str, str]
) -> None:
    lines = "/system Once upon a time there was a little dog and a big cat\nOne day\n/regen\n"
    first = run_llmcli("chat", "-i", str(chat_model), "-n", "20", "--stats", "-t", "0.9", input=lines)
    assert first.returncode == 0, first.stderr
    assert " cached) · ctx " in first.stderr, "the second answer uses what the first has computed"
    [path] = session_files(program_env)
    assert path.stat().st_mode & 0o777 == 0o600
    again = run_llmcli("chat", "-i", "-c", input="/status\nTwo\n/undo\n")
    assert again.returncode == 0, again.stderr
    assert "0.9 (session)" in again.stderr
    assert f"{chat_model} (folder)" in again.stderr
    assert session_files(program_env) == [path]
    whole = run_llmcli("sessions", "show", "1", "--json")
    assert [message["role"] for message in json.loads(whole.stdout)["messages"]] == [
        "system",
        "user",
        "assistant",
    ]


def test_a_single_answer_is_saved_only_in_a_session_that_is_named(
    chat_model: Path, run_llmcli: RunProgram, program_env: dict[str, str]
) -> None:
    assert run_llmcli("chat", str(chat_model), "One day", "-n", "3").returncode == 0
    assert session_files(program_env) == []
    for _ in range(2):
        done = run_llmcli("chat", str(chat_model), "One day", "-n", "3", "--session", "mine")
        assert done.returncode == 0, done.stderr
    [path] = session_files(program_env)
    assert path.read_text().count('"role": "user"') == 2


def test_one_answer_as_json_from_files_with_a_prefill(
    chat_model: Path, run_llmcli: RunProgram, tmp_path: Path
) -> None:
    (tmp_path / "question.txt").write_text("One day\n")
    options = ["-n", "3", "--json", "--prefill", "Yes, ", "--save", str(tmp_path / "chat.json")]
    done = run_llmcli("chat", str(chat_model), "-f", str(tmp_path / "question.txt"), *options)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["text"].startswith("Yes, ")
    assert record["usage"]["completion_tokens"] == 3
    messages = json.loads((tmp_path / "chat.json").read_text())["messages"]
    assert [message["content"] for message in messages] == ["One day", record["text"]]


def test_an_answer_that_was_cut_goes_on_as_if_it_had_not_been(
    chat_model: Path, run_llmcli: RunProgram
) -> None:
    greedy = ["chat", "-i", str(chat_model), "-t", "0", "--dtype", "float32"]
    assert run_llmcli(*greedy, "-n", "12", "--session", "whole", input="One day\n").returncode == 0
    lines = "One day\n/continue\n/copy\n"
    parts = run_llmcli(*greedy, "-n", "6", "--session", "parts", input=lines)
    assert "cut at max_tokens 6; /continue goes on" in parts.stderr
    assert "/copy needs a terminal" in parts.stderr
    whole, joined = (
        json.loads(run_llmcli("sessions", "show", name, "--json").stdout)["messages"]
        for name in ("whole", "parts")
    )
    assert [message["content"] for message in joined] == [message["content"] for message in whole]


def test_a_server_of_openais_kind_has_the_same_chat(run_llmcli: RunProgram) -> None:
    with FakeServer(key="secret").running() as server:
        env = {"LLMCLI_URL": server.url, "LLMCLI_API_KEY": "secret"}
        done = run_llmcli("chat", "hi", env=env)
        assert (done.returncode, done.stdout) == (0, "Hello there.\n"), done.stderr
        assert "“hi” is taken as a prompt; the server has no model of this name" in done.stderr
        assert "--api-key" not in done.stderr
        seen = run_llmcli("chat", "hi", "--api-key", "secret", env=env)
        assert (seen.returncode, seen.stdout) == (0, "Hello there.\n")
        assert "others on this machine can see --api-key" in seen.stderr
        named = run_llmcli("chat", "served", "hi", env=env)
        assert named.returncode == 0, named.stderr
        refused = run_llmcli("chat", "hi", env=env | {"LLMCLI_API_KEY": "wrong"})
        assert refused.returncode == 4
        assert "wants another key" in refused.stderr
    gone = run_llmcli("chat", "hi", env=env)
    assert gone.returncode == 6
    assert "no server at" in gone.stderr


def test_without_a_name_the_model_of_the_last_chat_is_taken_while_it_is_there(
    chat_model: Path, run_llmcli: RunProgram
) -> None:
    assert run_llmcli("chat", "-i", str(chat_model), "-n", "2", input="One day\n").returncode == 0
    again = run_llmcli("chat", "-i", input="/show\n")
    assert f"{chat_model} (folder)" in again.stderr
    chat_model.rename(chat_model.with_name("elsewhere"))
    assert "tiny-chat (bundled)" in run_llmcli("chat", "-i", input="/show\n").stderr


def test_the_settings_of_a_model_count_where_a_saved_chat_names_it(
    chat_model: Path, run_llmcli: RunProgram, program_env: dict[str, str]
) -> None:
    assert run_llmcli("chat", "-i", str(chat_model), "-n", "2", input="One day\n").returncode == 0
    folder = Path(program_env["HOME"]) / ".config" / "llmcli"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(
        f'[models."{chat_model}"]\ntop-k = 7\n[models.tiny-chat]\ntop-k = 8\n'
    )
    for options in (["-c"], []):
        done = run_llmcli("chat", "-i", *options, input="/set top_k\n")
        assert "top_k = 7 (~/.config/llmcli/config.toml" in done.stderr


def test_json_on_a_terminal_holds_no_control_characters(program_env: dict[str, str]) -> None:
    with FakeServer(replies=[answer("\x9b31mred")]).running() as server:
        screen = on_terminal(["chat", "hi", "--json", "--url", server.url], program_env)
    assert "\x9b" not in screen
    assert "\\u009b31mred" in screen


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
    [saved] = session_files(program_env)
    assert '"content": "One day later"' in saved.read_text()


def use_terminal(terminal: Terminal) -> None:
    terminal.until(">>>")
    terminal.type("One day\r")
    terminal.until("TTFT")
    terminal.type("two\x1b\rlines\r")
    terminal.until("TTFT", 2)
    terminal.type("/undo\r")
    terminal.until(r"took back 1 turn, from “two\nlines” on")
    terminal.type("/edit\r")
    terminal.until("change the message and send it")
    terminal.until("\x1b[0mOne day")
    terminal.type(" later\r")
    terminal.until("TTFT", 3)
    terminal.type("\x04")
    terminal.until("goes on with it")
    assert terminal.process.wait(GIVE_UP_S) == 0
    assert termios.tcgetattr(terminal.far_end) == terminal.modes


@pytest.mark.parametrize("options", [[], ["--markdown"], ["--plain"], ["--show-thinking"]])
def test_in_a_pipe_an_answer_has_no_control_sequences_whatever_the_view(
    stories: Path, run_llmcli: RunProgram, options: list[str]
) -> None:
    done = run_llmcli("chat", str(stories), "Once upon", "-n", "8", "--temperature", "0", *options, input="")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert done.stdout.endswith("\n")


def test_an_answer_has_the_form_of_the_option(run_llmcli: RunProgram) -> None:
    schema = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 1, "maxItems": 2}
    done = run_llmcli("chat", "Hello", "-j", json.dumps({"not": "this one"} | schema))
    assert (done.returncode, done.stdout) == (2, "")
    assert "at /not in the schema" in done.stderr
    done = run_llmcli("chat", "Hello", "-j", json.dumps(schema))
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) <= {1, 2}


def test_a_session_holds_answers_to_a_form_until_it_is_switched_off(run_llmcli: RunProgram) -> None:
    lines = "/regex (left|right)!\nHello\n/continue\n/regex a(\n/json off\nHello\n"
    done = run_llmcli("chat", "-i", "-n", "6", "--no-log", input=lines)
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first in ("left!", "right!")
    assert "regex can not be used: unclosed group" in done.stderr
    assert "answers: any text" in done.stderr
    assert done.stdout.splitlines()[-1] not in ("left!", "right!")
