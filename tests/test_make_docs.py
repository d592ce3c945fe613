"""The pages that are made from the help texts: complete, in a form that Markdown shows, and compared by --check."""

from pathlib import Path

import pytest

from llmcli.cli.app import COMMANDS
from scripts import make_docs


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty documentation, but for the page that is only partly made."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "configuration.md").write_text(f"before\n{make_docs.BEGIN}\nold\n{make_docs.END}\nafter\n")
    monkeypatch.setattr(make_docs, "DOCS", folder)
    return folder


def page(name: str) -> str:
    return make_docs.command_page(name, make_docs.commands())


def test_there_is_a_page_for_every_command_and_a_line_in_the_index(docs: Path) -> None:
    made = make_docs.pages()
    for name in COMMANDS:
        page_name = f"{name.split()[0]}.md"
        assert docs / "commands" / page_name in made
        assert f"[llmcli {name}]({page_name})" in made[docs / "commands" / "README.md"]


def test_a_page_has_usage_options_variables_and_other_names() -> None:
    text = page("chat")
    assert "llmcli chat [OPTIONS] [MODEL] [PROMPT]\n" in text
    [row] = [line for line in text.splitlines() if line.startswith("| `-n, --max-tokens")]
    assert "`LLMCLI_MAX_TOKENS`" in row
    assert "`--n-predict`" in row
    assert text.index("## Options") < text.index("## Engine options")


def test_another_name_of_a_command_is_told() -> None:
    assert "Also known as `llmcli ls`." in page("list")


def test_examples_are_lines_to_copy() -> None:
    assert "## Examples\n\n```\nllmcli list\nllmcli list --sort size" in page("list")


def test_a_bar_does_not_end_a_cell() -> None:
    assert make_docs._table([("a",), ("x|y",)]) == "| a |\n|---|\n| x\\|y |\n"


def test_every_option_is_in_the_table_once_with_the_commands_that_take_it() -> None:
    lines = make_docs.options_table(make_docs.commands()).splitlines()
    [row] = [line for line in lines if "`--kv-cache-dtype`" in line]
    assert "`LLMCLI_KV_CACHE_DTYPE`" in row
    assert "`auto`" in row
    assert "chat" in row
    assert "run" in row


def test_only_what_is_between_the_marks_is_replaced(docs: Path) -> None:
    text = make_docs.with_options((docs / "configuration.md").read_text(), "TABLE")
    assert text == f"before\n{make_docs.BEGIN}\n\nTABLE\n{make_docs.END}\nafter\n"


def test_check_fails_until_the_pages_are_written(docs: Path, capsys) -> None:
    assert make_docs.main(["--check"]) == 1
    assert "docs/commands/chat.md: out of date" in capsys.readouterr().out
    assert make_docs.main([]) == 0
    assert make_docs.main(["--check"]) == 0


def test_the_page_of_a_command_that_is_gone_is_removed(docs: Path) -> None:
    make_docs.main([])
    old = docs / "commands" / "old.md"
    old.write_text("old")
    assert make_docs.main(["--check"]) == 1
    make_docs.main([])
    assert not old.exists()


def test_an_unknown_argument_is_refused(docs: Path) -> None:
    assert make_docs.main(["--chekc"]) == 2
