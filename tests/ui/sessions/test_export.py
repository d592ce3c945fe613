"""A chat as a file, and back."""

import json
from pathlib import Path

import pytest

from llmcli.errors import OutputError, UsageError
from llmcli.outputs import RequestStats
from llmcli.ui.conversation import Turn
from llmcli.ui.sessions import export
from llmcli.ui.sessions.records import ChatSetup, SavedChat

CHAT = SavedChat(
    ChatSetup("org/model", "abc", system="be brief", params={"seed": 7}),
    (
        Turn("hi", "hello", reasoning="hm", finish_reason="stop", stats=RequestStats(9, 4, 2, 0.0, 0.5, 1.0)),
        Turn("tell me\nmore", "Once", finish_reason="abort"),
    ),
)


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
def test_json_and_jsonl_come_back_as_they_were(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"chat{ending}"
    export.write(CHAT, path)
    read = export.read(path, CHAT.setup)
    assert read == CHAT


def test_json_holds_openai_messages() -> None:
    value = json.loads(export.as_json(CHAT))
    assert [(m["role"], m["content"]) for m in value["messages"]] == [
        ("system", "be brief"),
        ("user", "hi"),
        ("assistant", "hello"),
        ("user", "tell me\nmore"),
        ("assistant", "Once"),
    ]
    assert (value["model"], value["params"]) == ("org/model", {"seed": 7})


def test_markdown_is_for_people() -> None:
    text = export.as_markdown(CHAT)
    assert text.startswith("# Chat with org/model\n\n## System\n\nbe brief\n")
    assert "## User\n\ntell me\nmore\n\n## Assistant\n\nOnce\n\n*(stopped)*\n" in text
    assert "<details><summary>Reasoning</summary>" in text


def test_a_bare_list_of_messages_is_a_chat_too(tmp_path: Path) -> None:
    path = tmp_path / "messages.json"
    path.write_text('[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]')
    read = export.read(path, ChatSetup("mine"))
    assert (read.setup.model, read.turns) == ("mine", (Turn("hi", "yo"),))


@pytest.mark.parametrize("content", ["{", "[]", '{"messages": 7}', '[{"role": "tool"}]', "7"])
def test_what_is_no_chat_is_refused_with_the_name_of_the_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "messages.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"messages\.json"):
        export.read(path, ChatSetup("mine"))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    for name in ("no.json", "no.jsonl"):
        with pytest.raises(UsageError):
            export.read(tmp_path / name, ChatSetup("mine"))


def test_targets_are_checked_before_there_is_something_to_lose(tmp_path: Path) -> None:
    (tmp_path / "there.md").touch()
    for name in ("x.pdf", "x", "there.md", "nowhere/x.md"):
        with pytest.raises(UsageError):
            export.check_target(tmp_path / name)
    export.check_target(tmp_path / "new.md")


def test_replacing_leaves_the_old_file_when_the_new_one_can_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / "chat.md"
    path.write_text("old")
    export.write(CHAT, path, replace=True)
    assert "hello" in path.read_text()
    with pytest.raises(OutputError, match="can not be written"):
        export.write(CHAT, tmp_path / "gone" / "chat.md", replace=True)
