"""Which word of the command line is the model and which the prompt."""

from pathlib import Path

import pytest

from llmcli.ui.positionals import join_prompt, split_model_and_prompt


@pytest.mark.parametrize(
    ("first", "model", "prompt"),
    [
        (None, None, None),
        ("Tell me a story", None, "Tell me a story"),
        ("hello", None, "hello"),
        ("", None, ""),
        ("tiny-chat", "tiny-chat", None),
        ("owner/name", "owner/name", None),
        ("owner/name@v1.0", "owner/name@v1.0", None),
        ("./missing/folder", "./missing/folder", None),
        ("what is and/or logic?", None, "what is and/or logic?"),
        ("x" * 5000, None, "x" * 5000),
        ("nul\0", None, "nul\0"),
    ],
)
def test_a_single_word_is_a_model_only_if_it_looks_like_one(
    first: str | None, model: str | None, prompt: str | None
) -> None:
    assert split_model_and_prompt(first, None) == (model, prompt)


def test_an_existing_folder_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert split_model_and_prompt("my-model", None) == ("my-model", None)


def test_of_two_the_first_is_the_model() -> None:
    assert split_model_and_prompt("hello", "world") == ("hello", "world")


@pytest.mark.parametrize(
    ("prompt", "piped", "joined"),
    [
        ("Sum up:", "text\n", "Sum up:\n\ntext"),
        (None, "text\r\n\n", "text"),
        ("hi", "", "hi"),
        ("hi", None, "hi"),
        (None, "  \n", None),
        ("", None, None),
    ],
)
def test_piped_text_follows_the_prompt_after_a_blank_line(
    prompt: str | None, piped: str | None, joined: str | None
) -> None:
    assert join_prompt(prompt, piped) == joined
