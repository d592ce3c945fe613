"""A chat that is saved as it goes: what a session leaves on disk, and what happens when it can not."""

import io
from pathlib import Path

import pytest

from llmcli.errors import UsageError
from llmcli.ui.commands.session import session_table
from llmcli.ui.session import ChatSession
from llmcli.ui.sessions.store import SessionInfo, SessionStore
from llmcli.ui.view import PlainView
from llmcli.ui.wrap import text_cells
from tests.ui.fake_engine import Chat, FakeEngine, Lines, Script


def run(chat: Chat, *lines: str) -> None:
    ChatSession(chat.state, Lines(*lines), lambda: PlainView(io.StringIO())).run()
    chat.state.log.close()


def saved(folder: Path) -> list[list[tuple[str, str | None]]]:
    """User and answer of each turn, session by session, oldest id first."""
    store = SessionStore(folder)
    ids = sorted(info.id for info in store.list())
    return [[(turn.user, turn.answer) for turn in store.read(name).turns] for name in ids]


@pytest.mark.parametrize(
    "lines",
    [
        ("hi", "more"),
        ("hi", "/regen"),
        ("hi", "more", "/undo", "again"),
        ("hi", "more", "/edit 2", "instead"),
        ("hi", "/continue", "/set temperature 0.5", "/system be brief"),
        ("hi", "/clear", "fresh"),
        ("hi", "w " * 200, "fine"),
    ],
)
def test_whatever_is_done_the_file_gives_the_conversation(tmp_path: Path, lines: tuple[str, ...]) -> None:
    chat = Chat(FakeEngine(), folder=tmp_path)
    run(chat, *lines)
    [session] = SessionStore(tmp_path).list()
    assert SessionStore(tmp_path).read(session.id) == chat.state.saved()


def test_the_question_is_on_disk_while_the_answer_is_written(tmp_path: Path) -> None:
    chat = Chat(FakeEngine(), folder=tmp_path)
    seen: list[str] = []

    class Spy(PlainView):
        def push(self, text: str) -> None:
            seen.extend(path.read_text() for path in tmp_path.iterdir())

    ChatSession(chat.state, Lines("what is it"), lambda: Spy(io.StringIO())).run()
    assert '"what is it"' in seen[0]


def test_a_stopped_answer_is_kept_as_aborted(tmp_path: Path) -> None:
    chat = Chat(FakeEngine([Script(("Once",), interrupted=True)]), folder=tmp_path)
    run(chat, "tell me")
    assert '"finish_reason": "abort"' in next(tmp_path.iterdir()).read_text()


def test_a_fork_is_a_session_of_its_own_with_all_that_was_said(tmp_path: Path) -> None:
    chat = Chat(FakeEngine([Script((word,)) for word in ["one", "two", "three"]]), folder=tmp_path)
    run(chat, "a", "/fork zweig", "b", "/resume 20", "c")
    assert saved(tmp_path) == [[("a", "one"), ("c", "three")], [("a", "one"), ("b", "two")]]
    first = min(tmp_path.iterdir()).read_text()
    assert '"event": "fork", "id": "zweig"' in first
    assert '"forked_from"' in (tmp_path / "zweig.jsonl").read_text()


def test_a_session_resumed_brings_its_system_prompt_and_parameters(tmp_path: Path) -> None:
    run(Chat(FakeEngine(), folder=tmp_path), "/system be brief", "/set top_p 0.5", "/set stop END", "hi")
    chat = Chat(FakeEngine(), {"temperature": 0.7}, folder=tmp_path)
    run(chat, "/resume 1", "more")
    assert chat.state.conversation.system == "be brief"
    assert chat.state.parameters.overrides == {"temperature": 0.7, "top_p": 0.5, "stop": ("END",)}
    assert len(saved(tmp_path)) == 1


def test_a_session_with_another_model_says_so(tmp_path: Path) -> None:
    run(Chat(FakeEngine(), folder=tmp_path), "hi")
    path = next(tmp_path.iterdir())
    path.write_text(path.read_text().replace('"model": "fake"', '"model": "org/other"'))
    chat = Chat(FakeEngine(), folder=tmp_path)
    run(chat, "/resume 1")
    assert "that chat was with org/other; this is fake (/model org/other changes it)" in chat.notes


def test_without_a_store_nothing_is_written_and_commands_say_why(tmp_path: Path) -> None:
    chat = Chat(FakeEngine())
    run(chat, "hi", "/sessions", "/fork", "/save")
    assert chat.notes.count("error: chats are not saved") == 2
    assert "session: chats are not saved" in chat.notes


def test_a_disk_that_fails_ends_the_saving_and_not_the_chat(tmp_path: Path) -> None:
    (tmp_path / "sessions").touch()
    chat = Chat(FakeEngine(), folder=tmp_path / "sessions")
    run(chat, "hi", "more")
    assert chat.notes.count("this chat is no longer saved") == 1
    assert len(chat.state.conversation.turns) == 2


def test_sessions_are_listed_with_the_present_one_marked(tmp_path: Path) -> None:
    chat = Chat(FakeEngine(), folder=tmp_path)
    run(chat, "/sessions", "what is it", "/sessions", "/resume", "/resume nope")
    assert "no saved session yet" in chat.notes
    assert "  1* " in chat.notes
    assert "what is it" in chat.notes
    assert "error: there is no session nope" in chat.notes


def test_a_title_in_wide_letters_is_cut_to_the_window() -> None:
    info = SessionInfo("mine", "mine.jsonl", "model", "日本語" * 20, turns=1, modified=0.0, size=1)
    line = session_table([info], 0.0, width=40)
    assert 35 < text_cells(line) <= 40
    assert line.endswith("…")


def test_export_and_save_write_files_and_never_over_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chat = Chat(FakeEngine(), folder=tmp_path / "sessions")
    run(
        chat,
        "/export x.md",
        "hi",
        "/export x.md",
        "/export x.md",
        "/export x.json",
        "/save y",
        "/export x.pdf",
    )
    assert "error: there is nothing to write yet" in chat.notes
    assert "error: x.md exists" in chat.notes
    assert "x.pdf has no ending that tells the format" in chat.notes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sessions", "x.json", "x.md", "y.jsonl"]


def test_a_file_that_can_not_be_written_ends_no_chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chat = Chat(FakeEngine())
    run(chat, "hi", f"/export {'x' * 300}.md", "/save x\0.md", "/save ~nobody-here/x.md", "more")
    assert chat.notes.count("can not be written") == 2
    assert "there is no folder ~nobody-here" in chat.notes
    assert len(chat.state.conversation.turns) == 2


def test_export_without_a_name_takes_that_of_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chat = Chat(FakeEngine(), folder=tmp_path / "sessions")
    run(chat, "hi", "/export")
    [written] = tmp_path.glob("*.md")
    assert written.stem == next((tmp_path / "sessions").iterdir()).stem


def test_a_session_that_is_open_elsewhere_is_refused(tmp_path: Path) -> None:
    first = Chat(FakeEngine(), folder=tmp_path)
    first.state.log.begin("mine")
    ChatSession(first.state, Lines("hi"), lambda: PlainView(io.StringIO())).run()
    with pytest.raises(UsageError, match="open in another chat"):
        SessionStore(tmp_path).resume("mine")
