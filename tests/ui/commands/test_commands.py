"""Slash commands: how a line is read, and what each command does."""

import re
from pathlib import Path

import pytest

from llmcli.errors import LLMCliError, UsageError
from llmcli.outputs import RequestStats
from llmcli.structured import StructuredOutput
from llmcli.ui.commands.command import Outcome
from llmcli.ui.commands.table import COMMANDS, Call, Message, as_input, complete, find_command, parse_input
from tests.ui.fake_engine import Chat, FakeEngine


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("hello", Message("hello")),
        ("  indented\n  code", Message("  indented\n  code")),
        ("", None),
        (" \n ", None),
        ("/help", Call("help", "")),
        ("/?", Call("?", "")),
        ("/SET temperature  0.7 ", Call("set", "temperature  0.7")),
        ("/system be\nbrief", Call("system", "be\nbrief")),
        ("!help", Call("help", "")),
        ("! wow", Message("! wow")),
        ("!!!", Message("!!!")),
        ("//etc/passwd", Message("/etc/passwd")),
        ('"""\n/not a command\nsecond\n"""', Message("/not a command\nsecond")),
        ('"""one line"""', Message("one line")),
        ('"""\n"""', None),
    ],
)
def test_a_line_is_a_message_a_command_or_nothing(line: str, parsed: object) -> None:
    assert parse_input(line) == parsed


@pytest.mark.parametrize("text", ["hello", "/etc/passwd", "!important", "two\nlines", "  x", '//a "b"'])
def test_a_text_can_be_typed_so_that_it_is_sent_as_it_is(text: str) -> None:
    assert parse_input(as_input(text)) == Message(text)


@pytest.mark.parametrize(
    ("typed", "near"), [("hlep", "/help"), ("regenerate", "/regen"), ("statu", "/status")]
)
def test_an_unknown_command_names_the_nearest(typed: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_command(typed)
    assert f"did you mean {near}?" in str(caught.value)


@pytest.mark.parametrize(
    ("alias", "name"),
    [("?", "help"), ("new", "clear"), ("retry", "regen"), ("bye", "exit"), ("quit", "exit"), ("set", "set")],
)
def test_aliases_find_their_command(alias: str, name: str) -> None:
    assert find_command(alias).name == name


def test_names_are_unique() -> None:
    names = [name for command in COMMANDS for name in command.names]
    assert len(names) == len(set(names))


def test_completion_offers_commands_then_arguments() -> None:
    offered = [text for text, _, _ in complete("/s")]
    assert offered == ["/system", "/sessions", "/save", "/set", "/status", "/show", "/stats"]
    assert ("temperature", "", 4) in list(complete("/set temp"))
    assert [text for text, _, _ in complete("/help und")] == ["undo"]
    assert [text for text, _, _ in complete("/think h")] == ["hide"]
    assert list(complete("hello /s")) == []
    assert list(complete("/set temperature 0")) == []


def test_completion_offers_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "nested").mkdir()
    (tmp_path / ".hidden").touch()
    assert [text for text, _, _ in complete("/read n")] == ["nested/", "notes.txt"]
    assert [text for text, _, _ in complete("/read ")] == ["nested/", "notes.txt"]
    assert list(complete("/read nowhere/x")) == []


def run(chat: Chat, line: str) -> Outcome:
    call = parse_input(line)
    assert isinstance(call, Call)
    return find_command(call.name).run(chat.state, call.argument)


@pytest.fixture
def chat() -> Chat:
    return Chat(FakeEngine(generation_defaults={"top_k": 40}), {"temperature": 0.5})


def say(chat: Chat, *turns: tuple[str, str]) -> None:
    for user, answer in turns:
        chat.state.conversation.add_user(user)
        chat.state.conversation.add_answer(answer, stats=RequestStats(15, 0, 5, 0.0, 0.1, 0.2))


def test_help_lists_every_command_and_explains_one(chat: Chat) -> None:
    run(chat, "/help")
    assert all(f"/{command.name}" in chat.notes for command in COMMANDS)
    run(chat, "/help retry")
    assert "/regen (also /retry)" in chat.notes
    run(chat, "/? shortcuts")
    assert "Alt-Enter" in chat.notes


def test_system_shows_sets_and_removes(chat: Chat) -> None:
    run(chat, "/system")
    assert "no system prompt" in chat.notes
    run(chat, "/system be brief")
    assert chat.state.conversation.system == "be brief"
    run(chat, "/system -")
    assert chat.state.conversation.system is None


@pytest.mark.parametrize("line", ["/set temperature 0.7", "/set parameter temperature 0.7", "/set temp 0.7"])
def test_set_changes_a_parameter(chat: Chat, line: str) -> None:
    run(chat, line)
    assert chat.state.parameters.overrides == {"temperature": 0.7}
    assert "temperature = 0.7 (session)" in chat.notes


def test_set_without_arguments_shows_values_with_their_origin(chat: Chat) -> None:
    run(chat, "/set")
    assert "0.5 (flag)" in chat.notes
    assert "40 (model's generation_config.json)" in chat.notes
    assert "1 (built-in)" in chat.notes


def test_set_turns_stats_off(chat: Chat) -> None:
    run(chat, "/set stats off")
    assert not chat.state.show_stats
    with pytest.raises(UsageError):
        run(chat, "/set stats maybe")


def test_set_switches_how_answers_are_shown(chat: Chat) -> None:
    run(chat, "/set")
    assert re.search("markdown +as the terminal allows", chat.notes)
    run(chat, "/set markdown off")
    run(chat, "/set wrap on")
    assert (chat.state.markdown, chat.state.wrap) == (False, True)
    assert "markdown = off" in chat.notes
    with pytest.raises(UsageError):
        run(chat, "/set wrap maybe")


def test_set_system_is_system(chat: Chat) -> None:
    run(chat, "/set system be brief")
    assert chat.state.conversation.system == "be brief"


def test_status_tells_model_memory_context_parameters_and_prefix_cache(chat: Chat) -> None:
    say(chat, ("hi", "hello"))
    run(chat, "/status")
    assert "fake (folder)" in chat.notes
    assert "float32 (option)" in chat.notes
    assert "weights 1.0 MiB" in chat.notes
    assert "1 turn, ctx 20/100 (20 %)" in chat.notes
    assert "0.5 (flag)" in chat.notes
    assert "30 of 40 prompt tokens (75%)" in chat.notes


def test_status_says_when_the_model_brings_no_defaults() -> None:
    chat = Chat(FakeEngine())
    run(chat, "/status")
    assert "none of the model's own" in chat.notes


def test_clear_forgets_the_turns(chat: Chat) -> None:
    say(chat, ("hi", "hello"))
    assert run(chat, "/new") is Outcome.GO_ON
    assert chat.state.conversation.turns == []


def test_undo_takes_back_and_says_what(chat: Chat) -> None:
    say(chat, ("first", "1"), ("second", "2"), ("third", "3"))
    run(chat, "/undo 2")
    assert [turn.user for turn in chat.state.conversation.turns] == ["first"]
    assert "took back 2 turns, from “second” on" in chat.notes


@pytest.mark.parametrize(
    "line", ["/undo x", "/undo 0", "/undo -1", "/undo", "/regen", "/continue", "/edit", "/fork", "/edit x"]
)
def test_what_can_not_be_undone_or_redone_is_told(chat: Chat, line: str) -> None:
    with pytest.raises(LLMCliError):
        run(chat, line)


def test_what_needs_the_session_is_left_to_it(chat: Chat) -> None:
    say(chat, ("hi", "hello"))
    assert run(chat, "/regen") is Outcome.REGENERATE
    assert run(chat, "/continue") is Outcome.CONTINUE
    assert run(chat, "/multi") is Outcome.READ_BLOCK
    assert run(chat, "/bye") is Outcome.EXIT


def test_json_and_regex_hold_the_next_answers_to_a_form(chat: Chat, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"type": "array"}')
    for line, form in (
        ('/json {"type": "string"}', StructuredOutput("json_schema", '{"type": "string"}')),
        (f"/json {file}", StructuredOutput("json_schema", '{"type": "array"}')),
        ("/json {}", StructuredOutput.json_object()),
        ("/regex [a-z]+ or so", StructuredOutput.regex("[a-z]+ or so")),
    ):
        run(chat, line)
        assert chat.state.backend().params(chat.state.overrides).structured == form
        assert f"answers: {form}" in chat.notes
    run(chat, "/regex off")
    assert chat.state.parameters.form is None
    assert chat.notes.rstrip().endswith("answers: any text")


def test_status_and_set_show_the_form_when_there_is_one(chat: Chat) -> None:
    run(chat, "/status")
    assert "form " not in chat.notes
    run(chat, "/regex [a-z]+")
    run(chat, "/status")
    run(chat, "/set")
    assert len(re.findall(r"form +regex \[a-z\]\+ \(session\)", chat.notes)) == 2


def test_off_takes_the_form_of_a_flag_back() -> None:
    chat = Chat(FakeEngine(), {"structured": StructuredOutput.regex("a")})
    run(chat, "/json")
    assert "answers: regex a" in chat.notes
    run(chat, "/json off")
    assert chat.state.parameters.form is None
    assert chat.state.backend().params(chat.state.overrides).structured is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('/json {"type": "thing"}', "thing"),
        ("/json {", "is not JSON"),
        ("/json nothing.json", "can not be read"),
        ("/regex a(b", "unclosed group"),
    ],
)
def test_a_form_that_can_not_be_used_changes_nothing(chat: Chat, line: str, said: str) -> None:
    run(chat, "/regex [a-z]+")
    with pytest.raises(LLMCliError) as caught:
        run(chat, line)
    assert said in str(caught.value)
    assert chat.state.parameters.form == StructuredOutput.regex("[a-z]+")
