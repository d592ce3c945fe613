"""`llmcli sessions`: what is listed, shown, exported and removed."""

import io
import json
import sys
from pathlib import Path

import pytest

from llmcli.cli.app import run_command_line
from llmcli.ui.conversation import Turn
from llmcli.ui.sessions.records import ChatSetup, SavedChat
from llmcli.ui.sessions.store import SessionStore

TURN = Turn("what is\nit?", "A \x1b[31mcat.", finish_reason="stop")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder with two sessions, one of them damaged."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("platformdirs.user_state_dir", lambda *args, **more: str(tmp_path / "llmcli"))
    store = SessionStore(tmp_path / "llmcli" / "sessions")
    file = store.create("good")
    file.record(SavedChat(ChatSetup("org/model"), (TURN,)))
    file.close()
    (store.folder / "bad.jsonl").write_text("nonsense\n")
    return store.folder


def run(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> tuple[str, str]:
    assert run_command_line(["sessions", *args]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out, err


def test_the_list_names_each_session_and_what_is_wrong_with_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = run(capsys)
    assert "good" in out
    assert "what is it?" in out
    assert "can not be read: " in out
    assert run(capsys, "list", "--quiet")[0].split() in (["good", "bad"], ["bad", "good"])


def test_the_list_as_json_is_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["id"]: row for row in json.loads(run(capsys, "list", "--json")[0])}
    assert (rows["good"]["turns"], rows["good"]["model"]) == (1, "org/model")
    assert rows["bad"]["problem"]


def test_a_session_of_which_all_was_taken_back_is_no_damaged_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(folder / "good.jsonl", "a") as file:
        file.write('{"event": "clear"}\n')
    [line] = [line for line in run(capsys)[0].splitlines() if line.startswith("good")]
    assert line.split("\t")[2:] == ["0", "model", ""]


def test_an_empty_list_says_so_beside_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platformdirs.user_state_dir", lambda *args, **more: str(tmp_path / "nothing"))
    out, err = run(capsys)
    assert out == ""
    assert "no saved chats" in err
    assert run(capsys, "list", "--json")[0] == "[]\n"


def test_show_and_export_print_the_chat(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "show", "go")[0].startswith("# Chat with org/model\n")
    assert json.loads(run(capsys, "export", "good", "--as", "json")[0])["messages"][0]["content"] == TURN.user
    assert json.loads(run(capsys, "show", "good", "--json")[0])["model"] == "org/model"
    assert run(capsys, "show", "good", "--format", "jsonl") == run(capsys, "export", "good", "--as", "jsonl")
    assert len(run(capsys, "export", "good", "--as", "jsonl")[0].splitlines()) == 3


def test_export_writes_a_file_and_never_over_one(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "chat.md"
    run(capsys, "export", "good", "-o", str(target))
    assert "A \x1b[31mcat." in target.read_text()
    _, err = run(capsys, "export", "good", "-o", str(target), code=2)
    assert "exists" in err


def test_a_removed_session_is_gone_and_the_others_stay(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    _, err = run(capsys, "rm", "good", code=2)
    assert "--yes" in err
    run(capsys, "rm", "good", "good", "--yes")
    assert [path.name for path in folder.iterdir()] == ["bad.jsonl"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["show"], "takes one session, got 0"),
        (["show", "good", "bad"], "takes one session, got 2"),
        (["show", "nope"], "there is no session nope"),
        (["show", "../../etc/passwd"], "there is no session"),
        (["show", "bad"], "line 1"),
        (["list", "good"], "takes no id"),
        (["remove"], "'list', 'show', 'rm', 'export'"),
    ],
)
def test_what_is_wrong_in_the_call_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], args: list[str], said: str
) -> None:
    assert said in run(capsys, *args, code=2)[1]
