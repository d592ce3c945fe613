"""The folder of saved chats: private files, torn lines, locks, and finding a session."""

import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmcli.errors import OutputError, UsageError
from llmcli.ui.conversation import Turn
from llmcli.ui.sessions.records import ChatSetup, SavedChat
from llmcli.ui.sessions.store import SessionFile, SessionStore, read_session, title

SETUP = ChatSetup("tiny-chat", system="be brief", params={"temperature": 0.5})
HELLO = Turn("hi", "hello", finish_reason="stop")


def clock() -> datetime:
    return datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path / "state" / "sessions", clock)


def write(store: SessionStore, name: str, *turns: Turn) -> SessionFile:
    file = store.create(name)
    file.record(SavedChat(SETUP, turns or (HELLO,)))
    file.close()
    return file


def test_a_session_is_a_private_file_that_begins_with_what_the_chat_runs_with(store: SessionStore) -> None:
    file = store.create()
    file.record(SavedChat(SETUP))
    assert not store.folder.exists(), "nothing is written before the first message"
    file.record(SavedChat(SETUP, (HELLO,)))
    assert file.id.startswith("20260304-050607-")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    meta, user, answer = map(json.loads, file.path.read_text().splitlines())
    assert meta["type"] == "meta"
    assert (meta["model"], meta["system"], meta["params"]) == ("tiny-chat", "be brief", {"temperature": 0.5})
    assert (user["role"], answer["content"]) == ("user", "hello")
    assert user["time"] == "2026-03-04T05:06:07+00:00"


def test_the_file_only_grows_and_gives_the_chat_again(store: SessionStore) -> None:
    file = store.create("mine")
    sizes, states = (
        [0],
        [(HELLO,), (HELLO, Turn("more")), (HELLO, Turn("more", "yes", finish_reason="length")), ()],
    )
    for turns in states:
        before = file.path.read_bytes() if file.path.exists() else b""
        file.record(SavedChat(SETUP, turns))
        assert file.path.read_bytes().startswith(before)
        sizes.append(file.path.stat().st_size)
    assert sizes == sorted(set(sizes))
    assert store.read("mine") == SavedChat(SETUP, ())


def test_a_resumed_session_goes_on_in_the_same_file(store: SessionStore) -> None:
    write(store, "mine")
    chat, file = store.resume("mine")
    assert chat == SavedChat(SETUP, (HELLO,))
    file.record(SavedChat(SETUP, (HELLO, Turn("more", "yes", finish_reason="stop"))))
    assert file.path.read_text().count('"hello"') == 1
    assert len(store.read("mine").turns) == 2


def test_a_torn_last_line_is_passed_over_and_taken_off_when_the_session_goes_on(store: SessionStore) -> None:
    path = write(store, "mine").path
    whole = path.read_bytes()
    following = b'{"role": "user", "content": "caf\xc3\xa9"}'
    for length in range(1, len(following)):
        path.write_bytes(whole + following[:length])
        assert store.read("mine").turns == (HELLO,)
    _, file = store.resume("mine")
    file.close()
    assert path.read_bytes() == whole


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(store: SessionStore) -> None:
    path = write(store, "mine").path
    path.write_bytes(path.read_bytes() + b"{nonsense\n" + b'{"event": "clear"}\n')
    with pytest.raises(UsageError, match="line 4"):
        store.resume("mine")
    assert store.list()[0].problem


def test_two_chats_can_not_write_the_same_session(store: SessionStore) -> None:
    write(store, "mine")
    _, file = store.resume("mine")
    with pytest.raises(UsageError, match="open in another chat"):
        store.resume("mine")
    with pytest.raises(UsageError, match="open in another chat"):
        store.remove("mine")
    file.close()
    store.remove("mine")
    assert store.list() == []


def test_the_list_is_newest_first_and_a_session_is_found_by_id_beginning_or_number(
    store: SessionStore,
) -> None:
    for age, name in enumerate(["alpha", "beta-1", "beta-2"]):
        path = write(store, name).path
        time = (clock() - timedelta(days=age)).timestamp()
        os.utime(path, (time, time))
    assert [info.id for info in store.list()] == ["alpha", "beta-1", "beta-2"]
    assert store.list()[0].title == "hi"
    assert store.latest() == "alpha"
    assert [store.find(words) for words in ("alpha", "al", "2", "beta-2")] == [
        "alpha",
        "alpha",
        "beta-1",
        "beta-2",
    ]
    for words in ("beta", "gamma", "", "4", "0", "../x"):
        with pytest.raises(UsageError):
            store.find(words)


def test_an_empty_store_has_no_latest(store: SessionStore) -> None:
    with pytest.raises(UsageError, match="no saved session"):
        store.latest()


def test_the_latest_session_and_what_was_used_last_pass_over_what_can_not_be_read(
    store: SessionStore,
) -> None:
    for age, name in enumerate(["broken", "served", "mine"]):
        path = write(store, name).path
        time = (clock() - timedelta(days=age)).timestamp()
        path.write_text("nonsense\n" if name == "broken" else path.read_text().replace("tiny-chat", name))
        os.utime(path, (time, time))
    assert store.latest() == "served"
    assert [setup.model for setup in store.setups()] == ["served", "mine"]


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "a\0b", "x" * 65, "ä"])
def test_a_name_that_is_none_for_a_file_is_refused(store: SessionStore, name: str) -> None:
    with pytest.raises(UsageError, match="no name for a session"):
        store.read(name)


def test_a_name_can_be_given_once(store: SessionStore) -> None:
    write(store, "mine")
    with pytest.raises(UsageError, match="--resume mine"):
        store.create("mine")


def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = SessionStore(tmp_path / "file" / "sessions", clock).create()
    with pytest.raises(OutputError, match="can not be written"):
        file.record(SavedChat(SETUP, (HELLO,)))


def test_a_session_that_is_not_there_is_told() -> None:
    with pytest.raises(UsageError, match="there is no session nothing"):
        read_session(Path("nothing.jsonl"))


def test_the_title_is_one_short_harmless_line() -> None:
    assert title((Turn("a\n  b\x1b[2J" + "c" * 99),)).startswith("a b\\x1b[2Jccc")
    assert len(title((Turn("c" * 99),))) == 60
