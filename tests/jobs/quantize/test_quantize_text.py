"""Calibration texts: what a file may hold, and how it is cut."""

import json
from pathlib import Path

import pytest

from llmcli.errors import UsageError
from llmcli.jobs.quantize.text import CALIBRATION_TEXT, HELD_OUT_TEXT, cut, read_texts
from llmcli.text.tokenizer import Tokenizer, load_tokenizer
from tests.quantize.small_models import TEMPLATE
from tests.tiny_models import write_tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    """One id for each byte, almost."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    write_tokenizer(folder, 300, TEMPLATE)
    return load_tokenizer(folder)


def read(path: Path, tokenizer: Tokenizer, num_tokens: int = 1000) -> list[str]:
    return read_texts("--calib-dataset", str(path), CALIBRATION_TEXT, tokenizer, num_tokens)


def test_every_form_of_a_line_gives_its_text(tmp_path, tokenizer) -> None:
    lines = [
        "plain",
        {"text": "a text"},
        {"prompt": "question", "completion": "answer", "label": 3},
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n\n".join(json.dumps(line) for line in lines))
    assert read(path, tokenizer) == [
        "plain",
        "a text",
        "question\nanswer",
        "<s>user\nhi</s>\n<s>assistant\nhello</s>\n",
    ]


@pytest.mark.parametrize("line", ['{"n": 1}', "17", "{", '{"messages": "hi"}', '{"text": null}', "null"])
def test_a_line_without_text_is_named(tmp_path, tokenizer, line) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('"good"\n' + line + "\n")
    with pytest.raises(UsageError, match="line 2"):
        read(path, tokenizer)


@pytest.mark.parametrize("content", ["", " \n \n"])
def test_a_file_without_text_is_refused(tmp_path, tokenizer, content) -> None:
    path = tmp_path / "texts.txt"
    path.write_text(content)
    with pytest.raises(UsageError, match="has no text"):
        read(path, tokenizer)


def test_of_a_large_file_the_beginning_is_read_up_to_a_whole_line(tmp_path, tokenizer) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "0123456789"}\n' * 100_000)
    texts = read(path, tokenizer, num_tokens=100)
    assert set(texts) == {"0123456789"}
    assert len(texts) == (1 << 20) // 23


def test_texts_are_cut_one_after_the_other(tokenizer) -> None:
    pieces = cut(["abcdefgh" * 4, "ijkl"], tokenizer, count=9, length=16, seed=0, vocab=300)
    assert pieces.shape == (2, 16)
    assert tokenizer.decode(pieces.flatten().tolist()) == "abcdefgh" * 4


def test_a_short_text_makes_one_short_piece_and_next_to_none_is_refused(tokenizer) -> None:
    assert cut(["abcdefgh" * 4], tokenizer, count=9, length=512, seed=0, vocab=300).shape == (1, 32)
    with pytest.raises(UsageError, match="has 3 tokens"):
        cut(["abc"], tokenizer, count=9, length=512, seed=0, vocab=300)


def test_the_seed_chooses_among_more_texts_than_are_wanted(tokenizer) -> None:
    text = [f"{number:016d}" for number in range(50)]
    first, same, other = (cut(text, tokenizer, count=5, length=16, seed=s, vocab=300) for s in (1, 1, 2))
    assert first.shape == (5, 16)
    assert first.tolist() == same.tolist() != other.tolist()


def test_the_built_in_texts_are_there_and_share_no_line() -> None:
    calibration, held_out = (path.read_text("utf-8") for path in (CALIBRATION_TEXT, HELD_OUT_TEXT))
    assert len(calibration) > 30_000
    assert len(held_out) > 5_000
    long_lines = {line for line in calibration.splitlines() if len(line) > 40}
    assert not long_lines & set(held_out.splitlines())
